"""Combine the terms of the objective with weights that are fixed, learned, or computed from gradients.

``L_i`` are the terms, ``share_i`` their factors in ``(1 - alpha) label + alpha sum_i weight_i transfer_i``, n their
number and ``g_i`` the gradient of ``share_i L_i``. Every weighting returns a scalar for a plain ``backward``, so that
accumulation, clipping, loss scaling and DDP treat it as any loss. Weights that adapt override the factors in time:
alpha and the loss weights then only give the start.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from kd.contract import precise
from kd.errors import KDError
from kd.options.declared import Checked, NotNegative, Positive

LEAST_WEIGHT = 1e-3
"""The lowest weight of GradNorm; a weight of 0 could never rise again."""

Terms = Mapping[str, Tensor]
Shares = Mapping[str, float]
Parameters = Callable[[], list[nn.Parameter]]
Curves = dict[str, Tensor | float]


class Weighting(nn.Module, Checked, ABC):
    """A rule that combines the terms of the objective; some rules refuse a single term.

    Args:
        names: names of all terms that the objective can have.
    """

    fewest_terms: ClassVar[int] = 1

    def __init__(self, names: list[str]):
        super().__init__()
        self.names = list(names)
        if len(names) < self.fewest_terms:
            found = f"only '{names[0]}'" if names else "none"
            raise KDError(
                f"{type(self).__name__} balances terms against each other, found {found}; add a transfer term, "
                "such as loss=[soft_target], or choose balance/weighting=constant"
            )

    @abstractmethod
    def forward(self, terms: Terms, shares: Shares, parameters: Parameters) -> tuple[Tensor, Curves]:
        """Return the objective and its curves to log.

        Args:
            terms: scalars by name, at least one; a term whose share is 0 is absent.
            shares: factor of each term.
            parameters: returns the trained parameters that the terms have in common; called only where gradients
                are compared.

        Returns:
            The total, a scalar with its graph, and ``weight/<name>``: the factor of ``share_i L_i``.
        """


@final
class ConstantWeighting(Weighting):
    """``sum_i share_i L_i``."""

    def forward(self, terms: Terms, shares: Shares, parameters: Parameters) -> tuple[Tensor, Curves]:
        return reduce(operator.add, shared(terms, shares).values()), {}


@final
class UncertaintyWeighting(Weighting):
    """``sum_i exp(-s_i) share_i L_i + s_i / 2``: s_i, the log-variance of a term's noise, is learned with the student.

    Every s_i starts at 0, where the gradients are those of `ConstantWeighting`. The total can be negative. Terms that
    are easily made small gain the most weight.

    Args:
        limit: s_i stays in [-limit, limit].

    Source: Kendall, Gal and Cipolla 2018, https://arxiv.org/abs/1705.07115
    """

    def __init__(self, names: list[str], limit: Positive = 5.0):
        super().__init__(names)
        self.limit = limit
        self.log_variances = nn.Parameter(torch.zeros(len(names)))

    def forward(self, terms: Terms, shares: Shares, parameters: Parameters) -> tuple[Tensor, Curves]:
        with torch.no_grad():  # a clamp within the graph would leave a value beyond the limit without a gradient
            self.log_variances.clamp_(-self.limit, self.limit)
        log_variances = precise(self.log_variances)[[self.names.index(name) for name in terms]]
        weights = (-log_variances).exp()
        return weighted(shared(terms, shares), weights) + log_variances.sum() / 2, curves(terms, weights.detach())


@final
class GradNorm(Weighting):
    """``sum_i w_i share_i L_i``: the w_i give all terms gradients of one size, larger ones to terms that fall slowly.

    Each w_i takes a `gradnorm_step` at every forward of training. A term keeps its weight in a step in which it has
    no gradient, or is not above 0 and so has no rate of training. There must be two terms.

    Args:
        asymmetry: how much more weight a term gets whose loss falls slowly; 0 makes all gradients equally long.
        learning_rate: learning rate of log w.

    Source: Chen et al. 2018, https://arxiv.org/abs/1711.02257
    """

    fewest_terms = 2

    weights: Tensor
    first_losses: Tensor

    def __init__(self, names: list[str], asymmetry: NotNegative = 1.5, learning_rate: Positive = 0.025):
        super().__init__(names)
        self.asymmetry, self.learning_rate = asymmetry, learning_rate
        self.register_buffer("weights", torch.ones(len(names)))
        self.register_buffer("first_losses", torch.zeros(len(names)))  # 0: not measured yet

    def forward(self, terms: Terms, shares: Shares, parameters: Parameters) -> tuple[Tensor, Curves]:
        parts = shared(terms, shares)
        present = torch.tensor([self.names.index(name) for name in terms], device=self.weights.device)
        if self.training and len(terms) > 1:
            norms = gradient_products(parts.values(), parameters()).diagonal().sqrt()
            losses = torch.stack([precise(term.detach()) for term in terms.values()])
            self._step(present, *mean_over_ranks(torch.stack([norms, losses])))
        weights = precise(self.weights)[present]
        return weighted(parts, weights), curves(terms, weights)

    def _step(self, present: Tensor, norms: Tensor, losses: Tensor) -> None:
        usable = norms.isfinite() & (norms > 0) & losses.isfinite() & (losses > 0)
        present, norms, losses = present[usable], norms[usable], losses[usable]
        if len(present) < 2:
            return
        first, weights = precise(self.first_losses), precise(self.weights)
        first = first.index_copy(0, present, torch.where(first[present] > 0, first[present], losses))
        moved = gradnorm_step(weights[present], norms, losses / first[present], self.asymmetry, self.learning_rate)
        self.first_losses.copy_(first)
        self.weights.copy_(weights.index_copy(0, present, moved))


@final
class PCGrad(Weighting):
    """``sum_j c_j share_j L_j``, whose gradient is the sum of the g_i, each without its conflicts with the others.

    g_i is compared with the others in random order and loses its part along every g_j with ``g_i . g_j < 0``. The rest
    is a combination of the g_j, so weights c_j >= 1 have the same effect; see `surgery`. There must be two terms.

    Source: Yu et al. 2020, https://arxiv.org/abs/2001.06782
    """

    fewest_terms = 2

    def forward(self, terms: Terms, shares: Shares, parameters: Parameters) -> tuple[Tensor, Curves]:
        parts = shared(terms, shares)
        weights = [1.0] * len(parts)
        if self.training and len(parts) > 1:
            products = gradient_products(parts.values(), parameters())
            # Random scores, not orders: the mean of scores over the ranks gives one order for all ranks.
            scores = torch.rand(len(parts), len(parts)).to(products)
            products, scores = mean_over_ranks(torch.stack([products, scores]))
            weights = surgery(products, scores.argsort(dim=1).tolist())
        return weighted(parts, weights), curves(terms, weights)


def gradnorm_step(
    weights: Tensor, norms: Tensor, rates: Tensor, asymmetry: float = 1.5, learning_rate: float = 0.025
) -> Tensor:
    """Take a step of gradient descent on ``sum_i |G_i - target_i| / mean_j G_j``, the targets and the mean held fixed.

    ``G_i = w_i |g_i|``, ``target_i = mean_j G_j (r_i / mean_j r_j)^asymmetry``;
    ``log w_i -= learning_rate sign(G_i - target_i) G_i / mean_j G_j``, then the sum of the w_i is restored.
    Unlike in the paper, the step is taken on log w and divided by the mean: weights stay positive, and
    the learning rate does not depend on the scale of the losses.

    Args:
        weights: w ``[n]``, > 0.
        norms: ``|g_i|``, ``[n]``, > 0, of the terms without their weights.
        rates: ``r_i = L_i / L_i(0)``, ``[n]``, > 0: the part of each loss that is left.
        asymmetry: >= 0.
        learning_rate: > 0.

    Returns:
        The new weights ``[n]``, of the same sum.

    Source: Chen et al. 2018, https://arxiv.org/abs/1711.02257
    """
    sizes = weights * norms
    targets = sizes.mean() * (rates / rates.mean()) ** asymmetry
    steps = (sizes - targets).sign() * sizes / sizes.mean()
    moved = (weights * (-learning_rate * steps).exp()).clamp(min=LEAST_WEIGHT)
    return moved * weights.sum() / moved.sum()


def surgery(products: Tensor, orders: list[list[int]]) -> list[float]:
    """Return weights c with ``sum_j c_j g_j = sum_i PC(g_i)``, the projected gradients of PCGrad.

    Args:
        products: ``g_i . g_j``, ``[n, n]``.
        orders: for each i, the order of the comparisons with the others; i itself is skipped.

    Returns:
        n numbers >= 1; all 1 where nothing conflicts, or where a gradient is not finite.

    Source: Yu et al. 2020, https://arxiv.org/abs/2001.06782

    >>> surgery(torch.tensor([[1.0, -1.0], [-1.0, 2.0]]), [[1], [0]])
    [2.0, 1.5]
    """
    products = products.double().cpu()
    combinations = torch.eye(len(products), dtype=torch.float64)
    if products.isfinite().all():
        for i, order in enumerate(orders):
            for j in order:
                overlap = combinations[i] @ products[:, j]
                if j != i and overlap < 0:
                    combinations[i, j] -= overlap / products[j, j]
    return combinations.sum(0).tolist()


def gradient_products(terms: Iterable[Tensor], parameters: list[nn.Parameter]) -> Tensor:
    """Return ``g_i . g_j``, ``[n, n]``, in float32 at least, and keep the graphs; unused parameters have gradient 0."""
    with torch.autocast(parameters[0].device.type, enabled=False):
        gradients = [torch.autograd.grad(term, parameters, retain_graph=True, materialize_grads=True) for term in terms]
        flat = (precise(torch.stack(parts).flatten(1)) for parts in zip(*gradients, strict=True))
        return reduce(operator.add, (rows @ rows.T for rows in flat))


def mean_over_ranks(values: Tensor) -> Tensor:
    """Return the mean over the ranks of a distributed run, so that all have the same weights; else the values."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(values)
        values = values / torch.distributed.get_world_size()
    return values


def shared(terms: Terms, shares: Shares) -> dict[str, Tensor]:
    """Return ``share_i L_i``; with a share of 1, the term itself."""
    return {name: term if shares[name] == 1 else shares[name] * term for name, term in terms.items()}


def weighted(parts: Terms, weights: Iterable[float | Tensor]) -> Tensor:
    """Return ``sum_i weight_i part_i``."""
    return reduce(operator.add, (weight * part for weight, part in zip(weights, parts.values(), strict=True)))


def curves(names: Iterable[str], weights: Iterable[float | Tensor]) -> Curves:
    """Return the weights by the names of their curves."""
    return {f"weight/{name}": weight for name, weight in zip(names, weights, strict=True)}
