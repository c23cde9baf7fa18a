"""Regularise a student by R-Drop, by mixup, and by equal outputs for rows about women and about men.

R-Drop: Liang et al. 2021, https://arxiv.org/abs/2106.14448. Mixup of sentence vectors: Guo et al. 2019 (senMixup),
https://arxiv.org/abs/1905.08941. Equal outputs for counterparts: Garg et al. 2019 (counterfactual logit pairing),
https://arxiv.org/abs/1809.10610.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from kd.contract import Batch
from kd.options.methods import RegularisedOptions

Terms = dict[str, Tensor]


def regularised(
    options: RegularisedOptions,
    logits_of: Callable[[Batch], Tensor],
    terms: Callable[[Tensor, Batch], Terms],
    batch: Batch,
) -> Terms:
    """Return ``total`` and its terms for a batch.

    Mixup mixes the vector that the last linear layer reads. This layer is linear, so its outputs are mixed instead,
    which is the same for every student. A mixed row has both labels and both answers of the teacher: each term is
    computed with those of either row, and the two are mixed like the vectors. For a cross-entropy this is the same as
    mixed probabilities.

    Args:
        options: the weights of R-Drop and of consistency, and the parameter of mixup's Beta distribution; 0 switches
            each off.
        logits_of: computes the student's logits, with dropout.
        terms: computes ``total`` and its terms from logits.
        batch: of training rows.
    """
    if options.r_drop:  # every row twice, each time with dropout of its own
        batch = {name: torch.cat([values, values]) for name, values in batch.items()}
    logits = logits_of(batch)
    parts = mixed(options.mixup, logits, terms, batch) if options.mixup else terms(logits, batch)
    if options.r_drop:
        penalty = symmetric_kl(*logits.chunk(2))
        parts = parts | {"r_drop": penalty, "total": parts["total"] + options.r_drop * penalty}
    if options.consistency:
        penalty = inconsistency(logits, logits_of, batch)
        parts = parts | {"consistency": penalty, "total": parts["total"] + options.consistency * penalty}
    return parts


def inconsistency(logits: Tensor, logits_of: Callable[[Batch], Tensor], batch: Batch) -> Tensor:
    """Return the symmetric divergence between rows and their counterparts, a mean over all rows of the batch.

    Rows without a counterpart count as 0, so that a batch may be split.
    """
    names = ("input_ids", "attention_mask")
    chosen = batch["exchanged_attention_mask"].any(dim=1)
    share = chosen.float().mean()
    if share:
        others = {name: batch[f"exchanged_{name}"][chosen] for name in names}
    else:  # all ranks must make the same passes: here one row is read again, with a factor of 0
        chosen = torch.arange(len(logits), device=logits.device) == 0
        others = {name: batch[name][chosen] for name in names}
    return symmetric_kl(logits[chosen], logits_of(others)) * share


def mixed(alpha: float, logits: Tensor, terms: Callable[[Tensor, Batch], Terms], batch: Batch) -> Terms:
    """Return the terms of rows, each mixed with another row by a share that is drawn from Beta(alpha, alpha)."""
    share = torch.distributions.Beta(alpha, alpha).sample().item()
    order = torch.randperm(len(logits)).to(logits.device)
    found = share * logits + (1 - share) * logits[order]
    own, other = terms(found, batch), terms(found, {name: values[order] for name, values in batch.items()})
    return {name: share * own[name] + (1 - share) * other[name] for name in own}


def symmetric_kl(one: Tensor, two: Tensor) -> Tensor:
    """Return the mean of the two divergences between the probabilities of some logits ``[B, C]``.

    >>> round(symmetric_kl(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]])).item(), 4)
    0.1155
    """
    one, two = one.float().log_softmax(dim=-1), two.float().log_softmax(dim=-1)
    forth = F.kl_div(one, two, reduction="batchmean", log_target=True)
    return (forth + F.kl_div(two, one, reduction="batchmean", log_target=True)) / 2
