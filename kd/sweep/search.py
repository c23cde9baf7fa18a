"""A search of Optuna over runs: what is searched, what became of the trials, and how a study goes on.

The trials' states are kept in ``study.journal`` in the sweep's folder, a file that several processes may write: the
sweep, and the jobs that report how they go (`kd.training.pruning`). Optuna is imported where it is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from kd.errors import KDError, Pruned
from kd.run.identity import NO_DIFFERENCE
from kd.storage.files import write_text
from kd.sweep.jobs import quoted

TRIAL = "KD_OPTUNA_TRIAL"
"""In the environment of a job: the file with the study, its name, and the trial's id, joined by ``|``."""

JOURNAL = "study.journal"
RESULTS = "optimization_results.yaml"
UP = ("accuracy", "macro_f1")
"""Objectives that are better the larger they are."""

AGAIN = "retry_of"


@dataclass(frozen=True)
class Space:
    """What a search varies, and what it leaves as it is.

    Args:
        distributions: Optuna's, by the key of an override.
        fixed: the other overrides.
    """

    distributions: dict[str, Any]
    fixed: list[str]

    @classmethod
    def of(cls, overrides: Sequence[str]) -> Space:
        """From overrides in Hydra's grammar; of several of one key the last counts."""
        found = {
            override.get_key_element(): override for override in OverridesParser.create().parse_overrides(overrides)
        }
        searched = {key: override for key, override in found.items() if override.is_sweep_override()}
        fixed = [override.input_line for key, override in found.items() if key not in searched]
        if not searched:
            raise KDError(
                "hydra/sweeper=optuna searches nothing: give a key several values, as in "
                "'temperature=interval(1.0,8.0)' 'alpha=range(0.1,1.0,0.1)' or student.hidden_size=32,64,128"
            )
        return cls({key: distribution(override) for key, override in searched.items()}, fixed)


def distribution(override: Override) -> Any:
    """What Optuna draws from: choices as Hydra writes them, whole or real numbers with or without a step."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if isinstance(value, IntervalSweep):
        whole = isinstance(value.start, int) and isinstance(value.end, int)
        kind = IntDistribution if whole else FloatDistribution
        return kind(value.start, value.end, log="log" in value.tags)
    if isinstance(value, RangeSweep) and not value.shuffle:
        values = sorted(override.sweep_iterator())
        if len(values) > 1 and all(isinstance(one, int) for one in values):
            return IntDistribution(values[0], values[-1], step=values[1] - values[0])
        if len(values) > 1:
            return FloatDistribution(float(values[0]), float(values[-1]), step=float(abs(value.step)))
    return CategoricalDistribution(list(override.sweep_string_iterator()))


@dataclass
class Search:
    """A study and the loop that feeds it.

    Args:
        root: the sweep's folder.
        name: of the study.
        objectives: names of what is compared; see `kd.run.directory.OBJECTIVES`.
        space: what is searched.
        sampler: Optuna's.
        n_trials: how many the study shall have in all, those of earlier commands too.
        batch: how many run side by side.
    """

    root: Path
    name: str
    objectives: list[str]
    space: Space
    sampler: Any
    n_trials: int
    batch: int
    failed_now: set[int] = field(default_factory=set)

    def __post_init__(self):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        directions = ["maximize" if name in UP else "minimize" for name in self.objectives]
        self.study = optuna.create_study(
            study_name=self.name,
            storage=open_storage(self.root / JOURNAL),
            sampler=self.sampler,
            directions=directions,
            load_if_exists=True,
        )
        self._refuse_another_search()

    def run(self, launch: Callable[[list[list[str]], int], Sequence[Any]]) -> None:
        """Ask, launch and tell until there are enough trials.

        Args:
            launch: given the overrides of several jobs and the number of the first, their results: figures, or the
                exception that says why there are none.

        Raises:
            KDError: the space is another than the study's.
        """
        from optuna.trial import TrialState

        number = 0
        interrupted = [trial.number for trial in self.study.trials if trial.state == TrialState.RUNNING]
        self._try_failed_again()
        while (missing := self.n_trials - self._count()) > 0:
            size = min(self.batch, missing)
            numbers = [interrupted.pop(0) for _ in range(min(size, len(interrupted)))]
            numbers += [self._ask() for _ in range(size - len(numbers))]
            results = launch([self._overrides(one) for one in numbers], number)
            for trial, result in zip(numbers, results, strict=True):
                self._tell(trial, result)
            number += len(numbers)
        self._write_results()

    def _ask(self) -> int:
        try:
            return self.study.ask(fixed_distributions=self.space.distributions).number
        except ValueError as error:
            raise KDError(
                f"the search space is not that of the study in '{self.root}' ({error}); give the search another name: "
                "sweep=NAME"
            ) from error

    def _overrides(self, number: int) -> list[str]:
        trial = self.study.trials[number]
        drawn = [f"{key}={plain(value)}" for key, value in trial.params.items()]
        named = f"{(self.root / JOURNAL).absolute()}|{self.name}|{trial._trial_id}"
        return [*self.space.fixed, *drawn, f"+hydra.job.env_set.{TRIAL}={quoted(named)}"]

    def _tell(self, number: int, result: Any) -> None:
        from optuna.trial import TrialState

        values = result if isinstance(result, list) else [result]
        if isinstance(result, Pruned):
            self.study.tell(number, state=TrialState.PRUNED)
        elif isinstance(result, Exception) or not all(map(math.isfinite, values)):
            self.failed_now.add(number)
            self.study.tell(number, state=TrialState.FAIL)
        else:
            self.study.tell(number, values)

    def _count(self) -> int:
        """Trials that have an end; those that failed before this command are tried again instead."""
        from optuna.trial import TrialState

        ended = (TrialState.COMPLETE, TrialState.PRUNED)
        return sum(trial.state in ended or trial.number in self.failed_now for trial in self.study.trials)

    def _try_failed_again(self) -> None:
        from optuna.trial import TrialState

        trials = self.study.trials
        tried = {trial.user_attrs.get(AGAIN) for trial in trials}
        for trial in trials:
            if trial.state == TrialState.FAIL and trial.number not in tried:
                self.study.enqueue_trial(trial.params, user_attrs={AGAIN: trial.number})

    def _refuse_another_search(self) -> None:
        known, mine = self.study.user_attrs, {"objectives": self.objectives, "fixed": comparable(self.space.fixed)}
        for key, value in mine.items():
            if key in known and known[key] != value:
                raise KDError(
                    f"the study in '{self.root}' is of other runs: {key} {known[key]}, now {value}; results of both do "
                    "not compare, so give the search another name: sweep=NAME"
                )
            self.study.set_user_attr(key, value)

    def _write_results(self) -> None:
        """The best trial, or those of several objectives that no other beats, as Hydra's own plugin writes them."""
        from optuna.trial import TrialState

        complete = [trial for trial in self.study.trials if trial.state == TrialState.COMPLETE]
        if not complete:
            return
        if len(self.objectives) == 1:
            best = self.study.best_trial
            found = {"name": "optuna", "best_params": best.params, "best_value": best.value}
            print(f"best of {len(complete)} trials: {self.objectives[0]} {best.value:.4g} with {said(best.params)}")
        else:
            front = self.study.best_trials
            found = {"name": "optuna", "solutions": [{"params": one.params, "values": one.values} for one in front]}
            print(f"{len(front)} of {len(complete)} trials are beaten by no other:")
            for one in front:
                figures = zip(self.objectives, one.values, strict=True)
                print(f"  {', '.join(f'{name} {value:.4g}' for name, value in figures)} with {said(one.params)}")
        write_text(self.root / RESULTS, yaml.safe_dump(found, sort_keys=False))


def plain(value: Any) -> Any:
    """A drawn value as a user would write it: 0.7, where the steps of a range have made 0.7000000000000001 of it."""
    return float(f"{value:.12g}") if isinstance(value, float) else value


def said(params: dict[str, Any]) -> str:
    """Parameters as on the command line."""
    return " ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in params.items()
    )


def comparable(overrides: Sequence[str]) -> list[str]:
    """Those that decide what a run gives."""
    return sorted(one for one in overrides if not one.lstrip("+~").split("=")[0].startswith(NO_DIFFERENCE))


def open_storage(file: Path) -> Any:
    """The storage of studies in a file, which several processes may open.

    Raises:
        KDError: without Optuna.
    """
    try:
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise KDError("a search needs Optuna; pip install 'kd[optuna]'") from error
    return JournalStorage(JournalFileBackend(str(file)))
