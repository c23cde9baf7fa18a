"""The objective of a student that learns from a teacher: the terms, their shares, and what moves the shares.

``(1 - alpha) * label_loss + alpha * sum_i weight_i * loss_i``
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import final

import torch
from torch import Tensor, nn

from kd.contract import Answer, Batch, Loss
from kd.errors import KDError
from kd.methods.confidence import Confidence, EveryRow, effective_rows
from kd.methods.schedules import Constant, LearnedTemperature, Schedule
from kd.methods.weighting import ConstantWeighting, Weighting, mean_over_ranks

log = logging.getLogger(__name__)

FAR_APART = 1000.0
"""A term that starts so many times larger or smaller than the label loss is worth a warning."""

TAKEN = frozenset({"total", "label"})
"""Names of other parts of the objective."""


def shares(alpha: float, weights: Mapping[str, float], label_share: float | None = None) -> dict[str, float]:
    """The factor of each term; those of 0 are left out, so that a share of 0 leaves a NaN out too.

    Without transfer terms the label loss is all there is, whatever alpha.

    Args:
        alpha: share of the transfer terms.
        weights: of the transfer terms, by name.
        label_share: instead of 1 - alpha.

    >>> shares(0.25, {"soft_target": 2.0, "hint": 0.0})
    {'label': 0.75, 'soft_target': 0.5}
    >>> shares(0.25, {})
    {'label': 1.0}
    """
    label = label_share if label_share is not None else 1 - alpha if weights else 1.0
    found = {"label": label, **{name: alpha * weight for name, weight in weights.items()}}
    return {name: share for name, share in found.items() if share}


@final
class Objective(nn.Module):
    """The terms of a student, and their balance.

    Args:
        losses: the transfer terms by name.
        alpha: share of the transfer terms, in [0, 1], by progress.
        temperature: by progress; other than constant it rules over the temperatures of the losses.
        confidence: how much each row counts in the transfer terms.
        weighting: names of all terms -> what combines them.
        calibrate: at the first step, scale the transfer terms so that each begins at ``weight_i`` label losses.
        keeps_label: the label loss has a share of its own, which alpha does not take away.

    Raises:
        KDError: no loss, a name that is taken, or settings that contradict each other.
    """

    def __init__(
        self,
        losses: Mapping[str, Loss],
        alpha: Schedule,
        temperature: Schedule | LearnedTemperature | None = None,
        confidence: Confidence | None = None,
        weighting: Callable[[list[str]], Weighting] = ConstantWeighting,
        calibrate: bool = False,
        keeps_label: bool = False,
    ):
        super().__init__()
        if taken := set(losses) & TAKEN:
            raise KDError(f"loss '{taken.pop()}' has the name of another part of the objective; rename it")
        low, high = alpha.bounds()
        if not 0 <= low <= high <= 1:
            raise KDError(
                f"alpha: expected the share of the transfer terms in [0, 1], got {low:g} to {high:g}; correct alpha"
            )
        self.transfer = nn.ModuleDict(losses)
        self.alpha, self.calibrate = alpha, calibrate
        self.temperature = None if isinstance(temperature, Constant) else temperature
        self.confidence = confidence or EveryRow()
        self.weighting = weighting(["label", *losses])
        self.register_buffer("scales", torch.ones(len(losses)))
        self.register_buffer("measured", torch.zeros(len(losses), dtype=torch.bool))
        self._known_factors: dict[str, float] = {}  # the buffers' content, read once: reading a GPU takes a step's time
        tempered = [name for name, loss in losses.items() if loss.tempered]
        if self.temperature is not None and not tempered:
            raise KDError(
                f"balance/temperature moves a temperature, and none of the losses ({', '.join(losses)}) has one; "
                "add loss=[soft_target] or set balance/temperature=constant"
            )
        for name, loss in losses.items():
            if math.isfinite(loss.highest_temperature) and self.temperature is None and loss.temperature != 1:
                raise KDError(
                    f"loss '{name}' follows a temperature that falls to 1, found a constant {loss.temperature:g}; set "
                    "balance/temperature=annealing"
                )
        for name in tempered if self.temperature is not None else ():
            lowest, highest = self.temperature.bounds()
            if lowest <= 0:
                raise KDError(
                    f"balance/temperature: expected temperatures above 0, got {lowest:g} to {highest:g}; "
                    "correct its ends"
                )
            if highest > losses[name].highest_temperature:
                raise KDError(
                    f"balance/temperature rises to {highest:g}, and loss '{name}' makes sense up to "
                    f"{losses[name].highest_temperature:g}; lower the one or raise loss.{name}.max_temperature"
                )
        heard = [name for name, loss in losses.items() if loss.weight and high > 0]
        if losses and low == 1 and not heard:
            raise KDError("alpha=1 leaves the losses alone, and their weights are all 0; raise one of them")
        balanced = (["label"] if low < 1 or keeps_label else []) + heard
        if losses and len(balanced) < 2 and not isinstance(self.weighting, ConstantWeighting):
            raise KDError(
                f"balance/weighting balances terms against each other, found only '{balanced[0]}'; give alpha between "
                "0 and 1, add a loss, or set balance/weighting=constant"
            )
        stiff = [name for name, loss in losses.items() if not loss.weighs_rows]
        if not isinstance(self.confidence, EveryRow) and stiff:
            if len(stiff) == len(losses):
                raise KDError(
                    f"balance/confidence weighs rows, and loss '{stiff[0]}' has no weight for each; use logit losses "
                    "such as soft_target with it, or balance/confidence=none"
                )
            log.info("balance/confidence: all rows count the same in %s", ", ".join(stiff))

    def learners(self) -> list[nn.Module]:
        """The modules that learn with the student."""
        return [part for part in (self.temperature, self.weighting) if isinstance(part, nn.Module)]

    def asks_teacher(self, progress: float) -> bool:
        """Whether a transfer term counts now."""
        return bool(self.transfer) and self.alpha.at(progress) > 0

    def forward(
        self,
        label: Tensor,
        answers: Mapping[str, Sequence[tuple[Answer, Answer]]],
        batch: Batch,
        progress: float,
        parameters: Callable[[], list[nn.Parameter]],
        alpha: float | None = None,
        label_share: float | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor | float]]:
        """The parts of the objective and the curves of their balance.

        Args:
            label: the label loss.
            answers: for each transfer term that takes part its pairs of (student, teacher), one a teacher; the term
                is the mean over them.
            batch: as the losses read it.
            progress: share of the optimizer steps done.
            parameters: what the terms have in common, for weightings that look at gradients.
            alpha: instead of the schedule's.
            label_share: see `shares`.
        """
        alpha = self.alpha.at(progress) if alpha is None else alpha
        curves: dict[str, Tensor | float] = {"alpha": alpha}
        if self.temperature is not None:  # without answers too: in joint training the partners may still learn
            temperature = self.temperature.at(progress)
            curves["temperature"] = temperature.detach() if isinstance(temperature, Tensor) else temperature
            self._set_temperature(temperature)
        terms = {"label": label}
        if answers:
            terms |= {name: self._term(name, pairs, batch, curves) for name, pairs in answers.items()}
        if "temperature" in curves:
            self._set_temperature(curves["temperature"])  # without its graph, with which no copy could be made
        weights = {name: self.transfer[name].weight * factor for name, factor in self._factors(terms, answers).items()}
        if self.calibrate:
            curves |= {f"scale/{name}": factor for name, factor in self._known_factors.items()}
        present = shares(alpha, weights, label_share) or {"label": 0.0}  # the student rests at this step
        total, moved = self.weighting({name: terms[name] for name in present}, present, parameters)
        return {"total": total, **terms}, curves | moved

    def _term(self, name: str, pairs: Sequence[tuple[Answer, Answer]], batch: Batch, curves: dict) -> Tensor:
        loss, values = self.transfer[name], []
        for student, teacher in pairs:
            weights = self.confidence.weights(teacher.logits.detach(), batch["labels"]) if loss.weighs_rows else None
            if weights is not None:
                curves["effective_rows"] = effective_rows(weights)
            values.append(loss(student, teacher, batch if weights is None else {**batch, "row_weights": weights}))
        return values[0] if len(values) == 1 else torch.stack(values).mean()

    def _set_temperature(self, value: float | Tensor) -> None:
        for loss in self.transfer.values():
            if loss.tempered:
                loss.temperature = value

    def _factors(self, terms: Mapping[str, Tensor], answers: Mapping[str, Sequence]) -> dict[str, float]:
        """What each transfer term is scaled by; a term that is seen for the first time is measured."""
        for place, name in enumerate(self.transfer):
            if name in answers and name not in self._known_factors:
                if not self.measured[place] and self.training:
                    self._measure(place, name, terms, answers[name][0][1].logits.shape[-1])
                self._known_factors[name] = self.scales[place].item()
        return {name: self._known_factors[name] for name in answers}

    @torch.no_grad()
    def _measure(self, place: int, name: str, terms: Mapping[str, Tensor], num_labels: int) -> None:
        """Compare a term with the label loss before anything is learnt from it."""
        # Without labels there is no label loss: that of a student that knows nothing stands in for it.
        label = terms["label"].item() or math.log(max(2, num_labels))
        size, weight = abs(terms[name].item()), self.transfer[name].weight
        label, size = mean_over_ranks(torch.tensor([label, size]).to(self.scales)).tolist()
        if not size:
            log.warning("loss '%s' is 0 at the first step: it says nothing of these rows, and no weight helps", name)
        elif self.calibrate:
            self.scales[place] = label / size
            log.info(
                "balance: '%s' starts at %.3g and the label loss at %.3g; '%s' is scaled by %.3g to %.3g label losses",
                *(name, size, label, name, self.scales[place].item(), weight),
            )
        elif weight and not label / FAR_APART <= weight * size <= label * FAR_APART:
            log.warning(
                "loss '%s' starts at %.3g (weight %g, so %.3g in all), the label loss at %.3g: one of them will not be "
                "heard; set loss.%s.weight near %.2g, or balance.calibrate=true",
                *(name, size, weight, weight * size, label, name, label / size),
            )
        self.measured[place] = True
