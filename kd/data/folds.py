"""The folds of a cross-validation, and shares of the rows that leave some to train on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kd.errors import KDError


class Fold(NamedTuple):
    """A fold of a cross-validation: its number, from 0, and how many there are."""

    number: int
    of: int


def folds_of(hashes: np.ndarray, folds: int) -> np.ndarray:
    """Return the fold ``[N]`` of rows with these hashes ``[N]``, whole numbers below 2^64, in whole arithmetic.

    >>> folds_of(np.array([0, 2**63 - 1, 2**63, 2**64 - 1], dtype=np.uint64), 10).tolist()
    [0, 4, 5, 9]
    """
    return (((hashes >> np.uint64(12)) * np.uint64(folds)) >> np.uint64(52)).astype(int)


def chosen_fold(fold: int | None, folds: int, validation_share: float, test_share: float) -> Fold | None:
    """Return the fold whose rows are test, None without one; refuse shares that leave no rows to train on.

    Raises:
        KDError: there is no such fold, or test and validation take all rows.
    """
    if fold is None:
        require_shares(validation_share, test_share)
        return None
    if fold >= folds:
        raise KDError(
            f"data.fold: expected a number from 0 to {folds - 1} with data.folds={folds}, got {fold}; lower it, or "
            "raise data.folds"
        )
    if validation_share + 1 / folds >= 1:
        raise KDError(
            f"data.validation_share={validation_share} and data.folds={folds}: expected two parts that leave rows for "
            "train, found none left; lower data.validation_share, or raise data.folds"
        )
    return Fold(fold, folds)


def require_shares(validation_share: float, test_share: float) -> None:
    """Refuse shares that leave no rows to train on.

    Raises:
        KDError: their sum is 1 or more.
    """
    if validation_share + test_share >= 1:
        raise KDError(
            f"data.validation_share={validation_share} and data.test_share={test_share}: expected two numbers whose "
            f"sum is below 1, found {validation_share + test_share}; lower one, so that rows are left for train"
        )
