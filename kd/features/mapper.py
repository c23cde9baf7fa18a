"""Modules that bring features of one width into another space: teacher into student, or student into teacher.

Throughout, B is the number of rows, L of tokens, N of feature vectors; ``x`` is one vector of ``in_size``
numbers. A `Mapper` is called as ``mapper(states, mask)``. Most are learned with the student; a `FittedMapper`
has a closed form, is fitted to features once before training, and learns nothing after that.

`Mapper.spec` says in plain JSON what `new_mapper` makes again, so that a saved model can name its mapper.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import chain
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor, nn

from kd.contract import number, option, precise
from kd.errors import KDError

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "tanh": nn.Tanh}

NORMS: dict[str, Callable[[int], nn.Module]] = {"layer": nn.LayerNorm, "none": nn.Identity}


Features = np.ndarray | Tensor
"""``[N, d]`` of any floating type; a memory-mapped array is read chunk by chunk."""


class Mapper(nn.Module, ABC):
    """A map from vectors of one width to vectors of another.

    Args:
        in_size: width of what it reads.
        out_size: width of what it gives.
        options: what else the concrete mapper was told, as plain JSON values; `spec` repeats them.

    Raises:
        KDError: an option is outside its range, or the two widths do not fit this mapper.
    """

    name: ClassVar[str]
    """Its key in `MAPPERS`."""

    pools: ClassVar[bool] = False
    """Whether it makes one vector of the tokens of a text."""

    def __init__(self, in_size: int, out_size: int, **options: Any):
        super().__init__()
        self.in_size = _count("in_size", in_size)
        self.out_size = _count("out_size", out_size)
        self.options = options

    @abstractmethod
    def map(self, states: Tensor, mask: Tensor) -> Tensor:
        """`forward` on states of the mapper's own floating type, zero outside the mask."""

    @final
    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """The mapped vectors.

        Args:
            states: ``[B, L, in_size]``, of any floating type; outside the mask they are not read.
            mask: ``[B, L]``, 1 for a token.

        Returns:
            ``[B, L, out_size]``, which holds anything outside the mask; ``[B, 1, out_size]`` where it `pools`.
        """
        own = next(chain(self.parameters(), self.buffers()), states)
        return self.map(states.to(own.dtype).masked_fill((mask == 0).unsqueeze(-1), 0), mask)

    @final
    def spec(self) -> dict[str, Any]:
        """Name and options, for `new_mapper`: plain JSON values without the widths."""
        return {"name": self.name, **self.options}


@final
class Linear(Mapper):
    """A learned linear map.

    ``W x + b``

    Args:
        bias: whether there is a b.

    Source: Romero et al. 2015 (FitNets), https://arxiv.org/abs/1412.6550
    """

    name = "linear"

    def __init__(self, in_size: int, out_size: int, bias: bool = True):
        super().__init__(in_size, out_size, bias=option("bias", bias, (True, False)))
        self.linear = nn.Linear(in_size, out_size, bias=bias)

    def map(self, states: Tensor, mask: Tensor) -> Tensor:
        return self.linear(states)


@final
class MLP(Mapper):
    """A learned map with one hidden layer.

    ``W2 dropout(activation(norm(W1 x + b1))) + b2``

    Args:
        hidden_size: width between the two; None: the larger of in_size and out_size.
        activation: ``gelu``, ``relu`` or ``tanh``.
        norm: ``layer`` or ``none``.
        dropout: probability, in [0, 1).

    Source: Chen et al. 2023, https://arxiv.org/abs/2310.17183
    """

    name = "mlp"

    def __init__(
        self,
        in_size: int,
        out_size: int,
        hidden_size: int | None = None,
        activation: str = "gelu",
        norm: str = "layer",
        dropout: float = 0.0,
    ):
        super().__init__(in_size, out_size, hidden_size=hidden_size, activation=activation, norm=norm, dropout=dropout)
        width = max(in_size, out_size) if hidden_size is None else _count("hidden_size", hidden_size)
        self.layers = nn.Sequential(
            nn.Linear(in_size, width),
            NORMS[option("norm", norm, NORMS)](width),
            ACTIVATIONS[option("activation", activation, ACTIVATIONS)](),
            nn.Dropout(number("dropout", dropout, "a number in [0, 1)", lambda value: 0 <= value < 1)),
            nn.Linear(width, out_size),
        )

    def map(self, states: Tensor, mask: Tensor) -> Tensor:
        return self.layers(states)


@final
class LowRank(Mapper):
    """A learned linear map through a narrow middle: ``rank (in_size + out_size)`` weights.

    ``U V x + b``, where ``V`` gives rank numbers

    Args:
        rank: from 1 to the smaller of in_size and out_size.

    Source: Lan et al. 2020 (ALBERT, for word tables), https://arxiv.org/abs/1909.11942
    """

    name = "low_rank"

    def __init__(self, in_size: int, out_size: int, rank: int = 16):
        super().__init__(in_size, out_size, rank=_count("rank", rank))
        if rank > min(in_size, out_size):
            raise KDError(
                f"the rank of a low-rank mapper from width {in_size} to {out_size} can be at most "
                f"{min(in_size, out_size)}, found {rank}; set a smaller rank, or use mapper=linear"
            )
        self.down = nn.Linear(in_size, rank, bias=False)
        self.up = nn.Linear(rank, out_size)

    def map(self, states: Tensor, mask: Tensor) -> Tensor:
        return self.up(self.down(states))


@final
class Identity(Mapper):
    """The vectors as they are, for two sides of one width.

    ``x``

    Raises:
        KDError: the widths differ.
    """

    name = "identity"

    def __init__(self, in_size: int, out_size: int):
        super().__init__(in_size, out_size)
        if in_size != out_size:
            raise KDError(
                f"an identity mapper needs two equal widths, found {in_size} -> {out_size}; "
                "make the widths equal, or use another mapper, such as mapper=linear"
            )

    def map(self, states: Tensor, mask: Tensor) -> Tensor:
        return states


@final
class AttentionPooling(Mapper):
    """One vector a text: learned queries weigh its tokens, and a linear map takes the weighted means.

    ``W [sum_l a_1l x_l; ...; sum_l a_hl x_l] + b``, ``a_h = softmax_l(q_h x_l / sqrt(in_size))`` over the tokens
    in the mask. The queries start at zero, so that training starts from the mean. A text without a token gives b.

    Args:
        heads: number of queries, >= 1; W reads one weighted mean of each.

    Source: Lin et al. 2017, https://arxiv.org/abs/1703.03130
    """

    name = "attention_pooling"
    pools = True

    def __init__(self, in_size: int, out_size: int, heads: int = 1):
        super().__init__(in_size, out_size, heads=_count("heads", heads))
        self.queries = nn.Parameter(torch.zeros(heads, in_size))
        self.linear = nn.Linear(heads * in_size, out_size)

    def map(self, states: Tensor, mask: Tensor) -> Tensor:
        scores = precise(states @ (self.queries / self.in_size**0.5).T)
        scores = scores.masked_fill((mask == 0).unsqueeze(-1), torch.finfo(scores.dtype).min)
        means = scores.softmax(1).to(states.dtype).transpose(1, 2) @ states
        return self.linear(means.flatten(1).unsqueeze(1))


def _count(name: str, value: int) -> int:
    return number(name, value, "a whole number >= 1", lambda value: isinstance(value, int) and value >= 1)
