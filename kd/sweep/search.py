"""A search with Optuna over runs: the search space, the results of the trials, and how a study is resumed.

The states of the trials are in ``study.journal`` in the sweep's folder. Several processes may write this file: the
sweep, and the jobs that report their accuracies (`kd.training.pruning`). Optuna is imported where it is used.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from kd.errors import KDError, Pruned
from kd.options.sections import METRICS
from kd.run.identity import NO_DIFFERENCE
from kd.runtime.launch import quoted
from kd.storage.checksum import digest
from kd.storage.files import write_text
from kd.storage.paths import refuse_link
from kd.sweep.jobs import parsed

TRIAL = "KD_OPTUNA_TRIAL"
"""A variable of a job's environment: the study's file, its name, and the trial's id, joined by ``|``."""

JOURNAL = "study.journal"
RESULTS = "optimization_results.yaml"
UP = METRICS
"""Objectives of which a larger value is better."""

SEALED = "sha256"
"""Attribute of a trial: the SHA-256 of its parameters and figures, set before they are told."""
AGAIN = "retry_of"
"""Attribute of a trial: the number of the failed trial that it repeats."""
SPENT = "seconds"
"""Attribute of a study: how long its trials took together."""


@dataclass(frozen=True)
class Space:
    """What a search varies and what it keeps constant.

    Args:
        distributions: Optuna's distributions, by the key of an override.
        fixed: the other overrides.
    """

    distributions: dict[str, Any]
    fixed: list[str]

    @classmethod
    def of(cls, overrides: Sequence[str]) -> Space:
        """Return the space of overrides in Hydra's grammar; the last override of a key counts.

        Raises:
            KDError: no key has several values.
        """
        found = {override.get_key_element(): override for override in parsed(overrides)}
        searched = {key: override for key, override in found.items() if override.is_sweep_override()}
        fixed = [str(override.input_line) for key, override in found.items() if key not in searched]
        if not searched:
            raise KDError(
                "hydra/sweeper=optuna searches nothing: give a key several values, as in "
                "'temperature=interval(1.0,8.0)' 'alpha=range(0.1,1.0,0.1)' or student.hidden_size=32,64,128"
            )
        return cls({key: distribution(override) for key, override in searched.items()}, fixed)


def distribution(override: Override) -> Any:
    """Return Optuna's distribution for an override: choices, or numbers with or without a step."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if isinstance(value, IntervalSweep):
        whole = isinstance(value.start, int) and isinstance(value.end, int)
        kind: Any = IntDistribution if whole else FloatDistribution
        return kind(value.start, value.end, log="log" in value.tags)
    if isinstance(value, RangeSweep) and not value.shuffle:
        values: list[Any] = sorted(cast(Iterator[float], override.sweep_iterator()))
        if len(values) > 1 and all(isinstance(one, int) for one in values):
            return IntDistribution(values[0], values[-1], step=values[1] - values[0])
        if len(values) > 1:
            return FloatDistribution(float(values[0]), float(values[-1]), step=abs(float(value.step)))
    return CategoricalDistribution(list(override.sweep_string_iterator()))


@dataclass
class Search:
    """A study, and the loop that runs its trials.

    Args:
        root: the sweep's folder.
        name: the study's name.
        objectives: names of the figures to compare; see `kd.run.directory.OBJECTIVES`.
        sampler: Optuna's sampler.
        n_trials: total number of trials in the study, those of earlier commands included.
        batch: number of trials that run at the same time.
        first: parameters of the trials that come before those that the sampler draws.
        seconds: all trials together may take this long, those of earlier commands included; None: no limit.
        failed_now: numbers of the trials that failed in this command.

    Raises:
        KDError: the study in the folder has other objectives or other fixed overrides.
    """

    root: Path
    name: str
    objectives: list[str]
    space: Space
    sampler: Any
    n_trials: int
    batch: int
    first: Sequence[Mapping[str, Any]] = ()
    seconds: float | None = None
    failed_now: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        import optuna

        refuse_link(self.root, self.root / JOURNAL)
        cut_half_line(self.root / JOURNAL)
        self.states = optuna.trial.TrialState
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        up, down = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
        self.storage = open_storage(self.root / JOURNAL)
        self.study = optuna.create_study(
            study_name=self.name,
            storage=self.storage,
            sampler=self.sampler,
            directions=[up if name in UP else down for name in self.objectives],
            load_if_exists=True,
        )
        self._refuse_another_search()

    def run(self, launch: Callable[[list[list[str]], int], Sequence[Any]]) -> None:
        """Run trials until there are enough.

        Args:
            launch: (overrides of several jobs, number of the first job) -> their results. A result is one figure,
                several, or an exception if the job has none.

        Raises:
            KDError: the study in the folder has another search space.
        """
        number = 0
        interrupted = [trial.number for trial in self.study.trials if trial.state == self.states.RUNNING]
        self._try_failed_again()
        for params in self.first:
            self.study.enqueue_trial(dict(params), skip_if_exists=True)
        while (missing := self.n_trials - self._count()) > 0 and self.left() > 0:
            size = min(self.batch, missing)
            numbers = [interrupted.pop(0) for _ in range(min(size, len(interrupted)))]
            numbers += [self._ask() for _ in range(size - len(numbers))]
            start = time.monotonic()
            results = launch([self._overrides(one) for one in numbers], number)
            spent = self.study.user_attrs.get(SPENT, 0.0) + time.monotonic() - start
            self.study.set_user_attr(SPENT, round(spent, 2))
            for trial, result in zip(numbers, results, strict=True):
                self._tell(trial, result)
            number += len(numbers)
        self._write_results()

    def left(self) -> float:
        """Return the seconds that are left for trials."""
        return math.inf if self.seconds is None else self.seconds - self.study.user_attrs.get(SPENT, 0.0)

    def _ask(self) -> int:
        try:
            return self.study.ask(fixed_distributions=self.space.distributions).number
        except ValueError as error:
            raise KDError(
                f"the study in '{self.root}' has another search space ({error}); give the search another name: "
                "sweep=NAME"
            ) from error

    def _overrides(self, number: int) -> list[str]:
        trial = self.study.trials[number]
        drawn = [f"{key}={plain(value)}" for key, value in trial.params.items()]
        named = f"{(self.root / JOURNAL).absolute()}|{self.name}|{trial._trial_id}"
        return [*self.space.fixed, *drawn, f"+hydra.job.env_set.{TRIAL}={quoted(named)}"]

    def _tell(self, number: int, result: Any) -> None:
        values = result if isinstance(result, list) else [result]
        if isinstance(result, Pruned):
            self.study.tell(number, state=self.states.PRUNED)
        elif isinstance(result, Exception) or not all(map(math.isfinite, values)):
            self.failed_now.add(number)
            self.study.tell(number, state=self.states.FAIL)
        else:
            trial = self.study.trials[number]
            self.storage.set_trial_user_attr(trial._trial_id, SEALED, seal(trial.params, values))
            self.study.tell(number, values)

    def _count(self) -> int:
        """Count the trials that are over. Those that failed in earlier commands do not count: they are repeated."""
        ended = (self.states.COMPLETE, self.states.PRUNED)
        return sum(trial.state in ended or trial.number in self.failed_now for trial in self.study.trials)

    def _try_failed_again(self) -> None:
        trials = self.study.trials
        tried = {trial.user_attrs.get(AGAIN) for trial in trials}
        for trial in trials:
            if trial.state == self.states.FAIL and trial.number not in tried:
                self.study.enqueue_trial(trial.params, user_attrs={AGAIN: trial.number})

    def _refuse_another_search(self) -> None:
        known, mine = self.study.user_attrs, {"objectives": self.objectives, "fixed": comparable(self.space.fixed)}
        for key, value in mine.items():
            if key in known and known[key] != value:
                raise KDError(
                    f"expected the study's {key} {known[key]} in '{self.root}', got {value}; results of both cannot be "
                    "compared, so give the search another name: sweep=NAME"
                )
            self.study.set_user_attr(key, value)

    def _write_results(self) -> None:
        """Print and write the best trial, or the Pareto front of several objectives.

        The file has the format of Hydra's own Optuna plugin.
        """
        complete = [trial for trial in self.study.trials if trial.state == self.states.COMPLETE]
        if not complete:
            return
        if len(self.objectives) == 1:
            best = self.study.best_trial
            found: dict[str, Any] = {"name": "optuna", "best_params": best.params, "best_value": best.value}
            print(f"best of {len(complete)} trials: {self.objectives[0]} {best.value:.4g} with {written(best.params)}")
        else:
            front = self.study.best_trials
            found = {"name": "optuna", "solutions": [{"params": one.params, "values": one.values} for one in front]}
            print(f"Pareto front, {len(front)} of {len(complete)} trials:")
            for one in front:
                figures = zip(self.objectives, one.values, strict=True)
                print(f"  {', '.join(f'{name} {value:.4g}' for name, value in figures)} with {written(one.params)}")
        write_text(self.root / RESULTS, yaml.safe_dump(found, sort_keys=False))


def plain(value: Any) -> Any:
    """Round a value that Optuna has drawn to 12 digits: 0.7000000000000001 becomes 0.7."""
    return float(f"{value:.12g}") if isinstance(value, float) else value


def written(params: dict[str, Any]) -> str:
    """Return parameters as they are written on the command line."""
    return " ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in params.items()
    )


def comparable(overrides: Sequence[str]) -> list[str]:
    """Return the overrides that affect a run's result, sorted."""
    return sorted(one for one in overrides if not one.lstrip("+~").split("=")[0].startswith(NO_DIFFERENCE))


def cut_half_line(file: Path) -> None:
    """Remove a last line that a killed process has not finished; otherwise the next line would be joined to it."""
    if file.is_file() and (content := file.read_bytes()) and not content.endswith(b"\n"):
        os.truncate(file, content.rfind(b"\n") + 1)


def open_storage(file: Path) -> Any:
    """Open a file as a storage of studies; several processes may open it.

    Raises:
        KDError: Optuna is not installed, or the file is damaged.
    """
    try:
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise KDError("a search needs Optuna; pip install 'kd[optuna]'") from error
    try:
        if file.is_file() and (lines := file.read_bytes().splitlines(keepends=True)) and lines[-1].endswith(b"\n"):
            json.loads(lines[-1])  # Optuna reads it when the next line is written; half a line is still being written
        storage = JournalStorage(JournalFileBackend(str(file)))
        for study in storage.get_all_studies():
            _require_plain(study.user_attrs.values())
            _require_numbers([study.user_attrs.get(SPENT, 0.0)])
            for trial in storage.get_all_trials(study._study_id):
                _require_plain(trial.params.values())
                _require_plain([trial.user_attrs.get(AGAIN)])
                _require_numbers([*(trial.values or ()), *trial.intermediate_values.values()])
                sealed = trial.user_attrs.get(SEALED)  # a study of an early kd has none
                if trial.values and sealed not in (None, seal(trial.params, trial.values)):
                    raise ValueError(f"the figures of trial {trial.number} do not match their checksum")
        return storage
    except Exception as error:  # a damaged line raises any of a dozen classes
        raise KDError(
            f"'{file}' is damaged ({type(error).__name__}: {error}); move it away, and the "
            "search starts anew: runs that are done are found again"
        ) from error


def seal(params: Mapping[str, Any], values: Sequence[float]) -> str:
    """Return the checksum of a trial's parameters and figures."""
    return digest({"params": dict(params), "values": [float(value) for value in values]}, default=str)


def _require_plain(values: Iterable[Any]) -> None:
    for value in values:
        if not (value is None or isinstance(value, bool | float | str | list) or abs(value) < 1e18):
            raise TypeError(f"expected a plain value, found {value!r}")


def _require_numbers(values: Iterable[Any]) -> None:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e18:
            raise TypeError(f"expected a number, found {value!r}")
