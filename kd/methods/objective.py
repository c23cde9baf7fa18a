"""The objective of a student that learns from a teacher: its terms, and the factor of each term.

``(1 - alpha) * label_loss + alpha * sum_i weight_i * loss_i``
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import cast, final

import torch
from torch import Tensor, nn

from kd.contract import Answer, Batch, Loss
from kd.errors import KDError
from kd.methods.confidence import Confidence, EveryRow, effective_rows
from kd.methods.schedules import Constant, LearnedTemperature, Schedule
from kd.methods.weighting import ConstantWeighting, Curves, Weighting, mean_over_ranks

log = logging.getLogger(__name__)

FAR_APART = 1000.0
"""A warning is logged for a term that starts this many times larger or smaller than the label loss."""


def shares(alpha: float, weights: Mapping[str, float], label_share: float | None = None) -> dict[str, float]:
    """Return the factor of each term. A factor of 0 is left out, so that a term that is NaN has no effect then.

    Without transfer terms, the factor of the label loss is 1, and alpha has no effect.

    Args:
        weights: of the transfer terms, by name.
        label_share: replaces 1 - alpha.

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
    """The terms of a student's objective, and their balance.

    Args:
        losses: the transfer terms by name.
        alpha: share of the transfer terms, in [0, 1], by progress.
        temperature: by progress; if it is not constant, it replaces the temperatures of the losses.
        confidence: the weights of the rows in the transfer terms.
        weighting: (names of all terms) -> the rule that combines them.
        calibrate: at the first step, scale the transfer terms so that each begins at ``weight_i`` label losses.
        keeps_label: the label loss has a factor that does not depend on alpha.
    """

    scales: Tensor
    measured: Tensor

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
        self.transfer = cast(Mapping[str, Loss], nn.ModuleDict(losses))
        self.alpha, self.calibrate = alpha, calibrate
        self.temperature = None if isinstance(temperature, Constant) else temperature
        self.confidence = confidence or EveryRow()
        self.weighting = weighting(["label", *losses])
        self.register_buffer("scales", torch.ones(len(losses)))
        self.register_buffer("measured", torch.zeros(len(losses), dtype=torch.bool))
        # The numbers in `scales`. Reading a buffer on a GPU takes as long as a step, so it is read only once.
        self._known_factors: dict[str, float] = {}
        self._require_terms(keeps_label)
        self._require_temperatures()
        self._require_weighed_rows()

    def _require_terms(self, keeps_label: bool) -> None:
        """Refuse names that are taken, an alpha outside [0, 1], and a weighting of a single term."""
        if taken := {"total", "label"} & set(self.transfer):
            raise KDError(f"loss '{min(taken)}' has the name of another part of the objective; rename it")
        low, high = self.alpha.bounds()
        if not 0 <= low <= high <= 1:
            raise KDError(
                f"alpha: expected the share of the transfer terms in [0, 1], got {low:g} to {high:g}; correct alpha"
            )
        effective = [name for name, loss in self.transfer.items() if loss.weight and high > 0]
        if self.transfer and low == 1 and not effective:
            raise KDError("alpha=1 leaves the losses alone, and their weights are all 0; raise one of them")
        balanced = (["label"] if low < 1 or keeps_label else []) + effective
        if self.transfer and len(balanced) < 2 and not isinstance(self.weighting, ConstantWeighting):
            raise KDError(
                f"balance/weighting balances terms against each other, found only '{balanced[0]}'; give alpha between "
                "0 and 1, add a loss, or set balance/weighting=constant"
            )

    def _require_temperatures(self) -> None:
        """Refuse a schedule of the temperature that no loss reads, or that leaves the range of a loss."""
        tempered = {name: loss for name, loss in self.transfer.items() if loss.tempered}
        if self.temperature is None:
            for name, loss in tempered.items():
                if math.isfinite(loss.highest_temperature) and loss.temperature != 1:
                    raise KDError(
                        f"loss '{name}' follows a temperature that falls to 1, found a constant {loss.temperature:g}; "
                        "set balance/temperature=annealing"
                    )
            return
        if not tempered:
            raise KDError(
                f"balance/temperature changes a temperature, and none of the losses ({', '.join(self.transfer)}) has "
                "one; add loss=[soft_target] or set balance/temperature=constant"
            )
        lowest, highest = self.temperature.bounds()
        if lowest <= 0:
            raise KDError(
                f"balance/temperature: expected temperatures above 0, got {lowest:g} to {highest:g}; correct its ends"
            )
        for name, loss in tempered.items():
            if highest > loss.highest_temperature:
                raise KDError(
                    f"balance/temperature rises to {highest:g}, and loss '{name}' makes sense up to "
                    f"{loss.highest_temperature:g}; lower the one or raise loss.{name}.max_temperature"
                )

    def _require_weighed_rows(self) -> None:
        """Refuse a confidence that has no effect, because no loss weighs rows."""
        unweighted = [name for name, loss in self.transfer.items() if not loss.weighs_rows]
        if isinstance(self.confidence, EveryRow) or not unweighted:
            return
        if len(unweighted) == len(self.transfer):
            raise KDError(
                f"balance/confidence weighs rows, and loss '{unweighted[0]}' has no weight for each; use losses on "
                "logits such as soft_target with it, or balance/confidence=none"
            )
        log.info("balance/confidence: all rows count the same in %s", ", ".join(unweighted))

    def learners(self) -> list[nn.Module]:
        """Return the modules that learn with the student."""
        return [part for part in (self.temperature, self.weighting) if isinstance(part, nn.Module)]

    def needs_teacher(self, progress: float) -> bool:
        """Return whether a transfer term has a share above 0 now."""
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
    ) -> tuple[dict[str, Tensor], Curves]:
        """Compute ``total`` and its terms, and the curves of their balance.

        Args:
            label: the label loss.
            answers: for each transfer term of this step, pairs of (student, teacher), one for each teacher; the term
                is the mean over them.
            batch: as the losses read it.
            progress: share of the optimizer steps done.
            parameters: returns the parameters that the terms have in common, for weightings that compare gradients.
            alpha: replaces the schedule's value.
            label_share: see `shares`.
        """
        alpha = self.alpha.at(progress) if alpha is None else alpha
        curves: Curves = {"alpha": alpha}
        if self.temperature is not None:  # also without answers: in joint training the partners may still learn
            temperature = self.temperature.at(progress)
            curves["temperature"] = temperature.detach() if isinstance(temperature, Tensor) else temperature
            self._set_temperature(temperature)
        terms = {"label": label, **{name: self._term(name, pairs, batch, curves) for name, pairs in answers.items()}}
        if "temperature" in curves:
            self._set_temperature(curves["temperature"])  # without its graph, since a graph cannot be copied
        weights = {name: self.transfer[name].weight * factor for name, factor in self._factors(terms, answers).items()}
        if self.calibrate:
            curves |= {f"scale/{name}": factor for name, factor in self._known_factors.items()}
        present = shares(alpha, weights, label_share) or {"label": 0.0}  # the student learns nothing at this step
        total, moved = self.weighting({name: terms[name] for name in present}, present, parameters)
        return {"total": total, **terms}, curves | moved

    def _term(self, name: str, pairs: Sequence[tuple[Answer, Answer]], batch: Batch, curves: Curves) -> Tensor:
        loss, values = self.transfer[name], []
        for student, teacher in pairs:
            logits = teacher.logits.detach()
            weights = self.confidence.weights(logits, batch["labels"]) if loss.weighs_rows else None
            if weights is not None:
                curves["effective_rows"] = effective_rows(weights)
            values.append(loss(student, teacher, batch if weights is None else {**batch, "row_weights": weights}))
        return values[0] if len(values) == 1 else torch.stack(values).mean()

    def _set_temperature(self, value: float | Tensor) -> None:
        for loss in self.transfer.values():
            if loss.tempered:
                loss.temperature = value  # type: ignore[assignment]  # which every tempered loss has

    def _factors(
        self, terms: Mapping[str, Tensor], answers: Mapping[str, Sequence[tuple[Answer, Answer]]]
    ) -> dict[str, float]:
        """Return the scale of each transfer term; measure a term when it first takes part."""
        for place, name in enumerate(self.transfer):
            if name in answers and name not in self._known_factors:
                if not self.measured[place] and self.training:
                    self._measure(place, name, terms, answers[name][0][1].logits.shape[-1])
                self._known_factors[name] = self.scales[place].item()
        return {name: self._known_factors[name] for name in answers}

    @torch.no_grad()
    def _measure(self, place: int, name: str, terms: Mapping[str, Tensor], num_labels: int) -> None:
        """Compare a term with the label loss before the student learns from it."""
        # Without labels the label loss is 0; the loss of a student with uniform probabilities replaces it.
        label = terms["label"].item() or math.log(max(2, num_labels))
        size, weight = abs(terms[name].item()), self.transfer[name].weight
        label, size = mean_over_ranks(torch.tensor([label, size]).to(self.scales)).tolist()
        if not size:
            log.warning("loss '%s' is 0 at the first step, and no weight can change that", name)
        elif self.calibrate:
            self.scales[place] = label / size
            log.info(
                "balance: '%s' starts at %.3g and the label loss at %.3g; '%s' is scaled by %.3g to %.3g label losses",
                *(name, size, label, name, self.scales[place].item(), weight),
            )
        elif weight and not label / FAR_APART <= weight * size <= label * FAR_APART:
            log.warning(
                "loss '%s' starts at %.3g (weight %g, so %.3g in all), the label loss at %.3g: the smaller one "
                "will have no effect; set loss.%s.weight near %.2g, or balance.calibrate=true",
                *(name, size, weight, weight * size, label, name, label / size),
            )
        self.measured[place] = True
