"""Mappers with a closed form: they are fitted to features once before training and are then constant."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Self, final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kd.errors import KDError
from kd.features.mapper import Features, Mapper
from kd.options.declared import Count, NotNegative

CHUNK = 8192
"""Number of feature vectors converted to float64 at once while a mapper is fitted."""


class FittedMapper(Mapper, ABC):
    """A map with a closed form. `fit` sets it once; its state is in buffers, so no optimizer changes it.

    ``W (x - origin) + bias``, where origin is the mean of the source and bias the mean of the target

    If it `needs_target`, it is fitted on pairs of source and target, otherwise on the source alone.
    """

    origin: Tensor
    weight: Tensor
    bias: Tensor
    fitted: Tensor

    def __init__(self, in_size: Count, out_size: Count, **options: Any):
        super().__init__(in_size, out_size, **options)
        self.register_buffer("origin", torch.zeros(self.in_size))
        self.register_buffer("weight", torch.zeros(self.out_size, self.in_size))
        self.register_buffer("bias", torch.zeros(self.out_size))
        self.register_buffer("fitted", torch.tensor(False))
        self._known_as_fitted = False
        self.register_load_state_dict_post_hook(_read_again)

    @abstractmethod
    def solve(self, source: Features, target: Features) -> Tensor:
        """Return W, ``[out_size, in_size]``, in float64, from checked features.

        If the mapper does not need a target, ``target`` is the source again.
        """

    @property
    def is_fitted(self) -> bool:
        """Whether `fit` was called, on this object or on the object whose state was loaded."""
        # True is kept in an attribute, because reading a buffer makes the host wait for the accelerator.
        self._known_as_fitted = self._known_as_fitted or bool(self.fitted)
        return self._known_as_fitted

    @final
    @torch.no_grad()
    def fit(self, source: Features, target: Features | None = None) -> Self:
        """Set the map from features, in float64 and in chunks.

        Args:
            source: ``[N, in_size]``.
            target: ``[N, out_size]``; row i is the target of row i of the source. Read if the mapper `needs_target`.

        Raises:
            KDError: a shape does not fit, a value is not finite, or there are too few rows.
        """
        origin = self._checked_mean("source", source, self.in_size)
        bias = torch.zeros(self.out_size)
        if self.needs_target:
            if target is None or len(target) != len(source):
                found = "none" if target is None else len(target)
                raise KDError(
                    f"mapper '{self.name}' is fitted on pairs: expected {len(source)} target rows, found {found}; "
                    "give source and target features of the same texts in the same order"
                )
            bias = self._checked_mean("target", target, self.out_size)
        weight = self.solve(source, source if target is None else target)
        for buffer, value in ((self.origin, origin), (self.weight, weight), (self.bias, bias)):
            buffer.copy_(value)
        self.fitted.fill_(True)
        return self

    def _checked_mean(self, side: str, features: Features, width: int) -> Tensor:
        if features.ndim != 2 or features.shape[1] != width or not len(features):
            raise KDError(
                f"the {side} features of mapper '{self.name}' must be [N, {width}] with N >= 1, "
                f"found {list(features.shape)}; give one row for each text or token"
            )
        means = mean(features)
        if not means.isfinite().all():
            raise KDError(
                f"the {side} features of mapper '{self.name}' must be finite, found inf or nan; "
                "check the weights and the precision of the model that computed them"
            )
        return means

    @final
    def map(self, states: Tensor, mask: Tensor) -> Tensor:
        # A graph that torch.export captures cannot branch on the value of a tensor.
        if not (torch.compiler.is_compiling() or self.is_fitted):
            raise KDError(
                f"mapper '{self.name}' must be fitted before it maps, found it unfitted; call fit() with features, "
                "or load the state of a fitted mapper"
            )
        # In full precision, as the teacher's features that the result is compared with.
        with torch.autocast(states.device.type, enabled=False):
            return F.linear(states - self.origin, self.weight, self.bias)


@final
class PCA(FittedMapper):
    """Principal components of the source: the out_size axes of largest variance.

    ``W (x - mean)``. The rows of W are orthonormal eigenvectors of the covariance, by falling eigenvalue. The largest
    number of each is positive, so that the same features give the same axes. If whitened, each row is divided by
    the standard deviation along its axis.

    Args:
        whiten: scale all components to variance 1.

    Raises:
        KDError: out_size is larger than in_size; in `fit`, fewer rows than out_size, or nothing to whiten.

    Source: Jolliffe and Cadima 2016, https://doi.org/10.1098/rsta.2015.0202
    """

    name = "pca"
    needs_target = False

    def __init__(self, in_size: Count, out_size: Count, whiten: bool = False):
        super().__init__(in_size, out_size, whiten=whiten)
        self.whiten = whiten
        if out_size > in_size:
            raise KDError(
                f"PCA gives at most as many numbers as it reads, found {in_size} -> {out_size}; "
                f"use a width of at most {in_size}, or another mapper, such as mapper=linear"
            )

    def solve(self, source: Features, target: Features) -> Tensor:
        if len(source) < self.out_size:
            raise KDError(
                f"PCA to width {self.out_size} needs at least as many rows, found {len(source)}; "
                "give more features, or use a smaller width"
            )
        variances, axes = torch.linalg.eigh(covariance(source, source))
        variances, axes = variances.flip(0)[: self.out_size], axes.flip(1)[:, : self.out_size].T
        axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()  # eigh leaves the sign open
        if not self.whiten:
            return axes
        rank = int((variances > variances[0] * self.in_size * torch.finfo(variances.dtype).eps).sum())
        if rank < self.out_size:
            raise KDError(
                f"PCA with whiten=true needs features that vary along {self.out_size} axes, found {rank}; "
                "give more features, use a smaller width, or set whiten=false"
            )
        return axes / variances.sqrt().unsqueeze(1)


@final
class LeastSquares(FittedMapper):
    """The affine map with the least squared error from source to target, with a ridge penalty.

    ``W = C_ts (C_ss + ridge mean(diag C_ss) I)^-1``, C the covariances of target t and source s

    Args:
        ridge: penalty, relative to the mean variance of the source; 0 gives the solution of least norm.

    Source: Hoerl and Kennard 1970, https://doi.org/10.1080/00401706.1970.10488634; between embedding spaces:
    Mikolov, Le and Sutskever 2013, https://arxiv.org/abs/1309.4168
    """

    name = "least_squares"

    def __init__(self, in_size: Count, out_size: Count, ridge: NotNegative = 1e-3):
        super().__init__(in_size, out_size, ridge=ridge)
        self.ridge = ridge

    def solve(self, source: Features, target: Features) -> Tensor:
        spread = covariance(source, source)
        penalised = spread + self.ridge * spread.diagonal().mean() * torch.eye(self.in_size, dtype=spread.dtype)
        # The pseudo-inverse also exists for ridge=0 and fewer rows than columns.
        return covariance(target, source) @ torch.linalg.pinv(penalised, hermitian=True)


@final
class Procrustes(FittedMapper):
    """The rotation that brings the centred source closest to the centred target.

    ``W = scale V U^T``, where ``U S V^T`` is the singular value decomposition of ``C_st``, the covariance of
    source s and target t. W has orthonormal rows or columns, whichever are fewer. If ``in_size <= out_size``, no such
    map has a smaller squared error. Otherwise there is no closed form for the error, and W has the largest inner
    product with the target. Fewer than ``min(in_size, out_size) + 1`` rows do not determine the whole rotation.

    Args:
        scale: fit a factor too, ``sum(S) / trace(R C_ss R^T)`` with ``R = V U^T``; otherwise it is 1.

    Source: Schönemann 1966, https://doi.org/10.1007/BF02289451; between embedding spaces: Smith et al. 2017,
    https://arxiv.org/abs/1702.03859
    """

    name = "procrustes"

    def __init__(self, in_size: Count, out_size: Count, scale: bool = False):
        super().__init__(in_size, out_size, scale=scale)
        self.scale = scale

    def solve(self, source: Features, target: Features) -> Tensor:
        left, strengths, right = torch.linalg.svd(covariance(target, source), full_matrices=False)
        rotation = left @ right
        if not self.scale:
            return rotation
        spread = ((rotation @ covariance(source, source)) * rotation).sum()
        return rotation * strengths.sum() / spread.clamp_min(torch.finfo(spread.dtype).tiny)


def mean(features: Features) -> Tensor:
    """Return the mean vector ``[d]`` of features ``[N, d]``, in float64."""
    return sum((chunk.sum(0) for chunk in _chunks(features)), torch.zeros(())) / len(features)


def covariance(first: Features, second: Features) -> Tensor:
    """Return the covariances ``[d1, d2]`` of features ``[N, d1]`` with features ``[N, d2]``, in float64.

    ``1/(N - 1) sum_n (first_n - mean(first)) (second_n - mean(second))^T``
    """
    first_mean, second_mean = mean(first), mean(second)
    pairs = zip(_chunks(first), _chunks(second), strict=True)
    products = ((a - first_mean).T @ (b - second_mean) for a, b in pairs)
    return sum(products, torch.zeros(())) / max(len(first) - 1, 1)


def _chunks(features: Features) -> Iterator[Tensor]:
    for start in range(0, len(features), CHUNK):
        rows = features[start : start + CHUNK]
        yield rows.to("cpu", torch.float64) if isinstance(rows, Tensor) else torch.from_numpy(rows.astype(np.float64))


def _read_again(mapper: FittedMapper, _: Any) -> None:
    mapper._known_as_fitted = False
