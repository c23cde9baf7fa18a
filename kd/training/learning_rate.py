"""Find a learning rate before the training: raise it step by step, and take the one at which the loss falls fastest.

Smith 2017, https://arxiv.org/abs/1506.01186
"""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
import pandas
from lightning.pytorch.tuner import Tuner
from omegaconf import DictConfig
from scipy.ndimage import gaussian_filter1d

from kd.config import build
from kd.config.make import make
from kd.config.trainer import section
from kd.data.module import TextDataModule
from kd.errors import KDError, TrainingFailed
from kd.methods.base import Method
from kd.run.directory import RunDirectory
from kd.runtime.devices import global_batch

log = logging.getLogger(__name__)

STEPS, LOWEST, HIGHEST = 100, 1e-3, 1e2
"""Steps of the search, and the first and the last rate as multiples of ``optim.optimizer.lr``."""
KEPT = 0.98
"""What Lightning keeps of the mean of the losses at each step."""
WIDTH = 5
"""Standard deviation of the Gaussian that smooths the losses, in steps."""
CURVE = "learning_rates.csv"


def set_rate(config: DictConfig, run: RunDirectory, method: Method, data: TextDataModule) -> None:
    """Find the learning rate if ``optim.find`` is set, or log the one that ``optim.scale`` has adapted.

    Raises:
        KDError: at no rate does the loss fall.
    """
    if config.optim.get("find"):
        use_found_rate(config, run, method, data)
    elif config.optim.scale != "none":
        log.info(
            "learning rate: %.4g, for a global batch of %d rows (optim.scale=%s from %g at %d rows)",
            *(build.optimizer(config).keywords["lr"], global_batch(config), config.optim.scale),
            *(config.optim.optimizer.lr, config.optim.reference_batch),
        )


def use_found_rate(config: DictConfig, run: RunDirectory, method: Method, data: TextDataModule) -> None:
    """Find a learning rate with a copy of the method, write its curve, and give the rate to the method's optimizer.

    Raises:
        KDError: at no rate does the loss fall.
    """
    given = config.optim.optimizer.lr
    trainer = make(
        section(config, run.path, "trainer"),
        **{"logger": False, "callbacks": [], "enable_checkpointing": False, "enable_progress_bar": False},
        **{"max_epochs": -1, "max_steps": STEPS, "check_val_every_n_epoch": 10**6, "num_sanity_val_steps": 0},
        default_root_dir=str(run.path),
    )
    bounds = {"min_lr": LOWEST * given, "max_lr": HIGHEST * given, "num_training": STEPS}
    try:
        finder: Any = Tuner(trainer).lr_find(copy.deepcopy(method), datamodule=data, update_attr=False, **bounds)
    except TrainingFailed as error:
        raise KDError(
            f"optim.find tries rates up to {HIGHEST * given:g}; lower optim.optimizer.lr ({error})"
        ) from error
    rates, losses = (np.array(finder.results[name] if finder else []) for name in ("lr", "loss"))
    found = steepest(rates, losses := single_losses(losses))
    if found is None:
        raise KDError(
            f"optim.find: expected a learning rate from {LOWEST * given:g} to {HIGHEST * given:g} at which the loss "
            "falls, found none; lower optim.optimizer.lr, or give more rows"
        )
    pandas.DataFrame({"lr": rates, "loss": losses}).to_csv(run.path / CURVE, index=False)
    log.info("learning rate: %.3g, where the loss fell fastest of %d rates; see %s", found, len(rates), CURVE)
    method.recipe = replace(method.recipe, optimizer=partial(cast(Any, method.recipe.optimizer), lr=found))


def single_losses(means: np.ndarray) -> np.ndarray:
    """Return the loss of each step from Lightning's running means.

    The mean keeps 0.98 of itself at each step, so that among 100 steps it hides where the loss falls. Lightning 2.6
    divides the mean of n losses by ``1 - KEPT ** (n + 1)``.
    """
    steps = np.arange(1, len(means) + 1)
    sums = means * (1 - KEPT ** (steps + 1))
    return (sums - KEPT * np.concatenate([[0.0], sums[:-1]])) / (1 - KEPT)


def steepest(rates: np.ndarray, losses: np.ndarray) -> float | None:
    """Return the rate at which the smoothed loss falls fastest by the logarithm of the rate, before its minimum.

    None if there are fewer than 10 rates, or if the smoothed loss falls by less than twice the noise of
    single losses.
    """
    if len(rates) < 10:
        return None
    smooth = gaussian_filter1d(losses, WIDTH, mode="nearest")
    lowest = int(smooth.argmin())
    before = slice(0, lowest + 1)
    if lowest < 2 or smooth[0] - smooth[lowest] < 2 * np.std(losses[before] - smooth[before]):
        return None
    slope = np.gradient(smooth[before], np.log(rates[before]))
    return float(rates[int(slope.argmin())])
