"""Give up hopeless runs of a search: Lightning tells Optuna how a run goes, Optuna says whether to go on."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import lightning

from kd.errors import KDError
from kd.sweep.search import TRIAL, open_storage

log = logging.getLogger(__name__)


class Pruning(lightning.Callback):
    """After each epoch's validation, report a metric to the run's trial, and stop where the pruner says so.

    The job is a process of its own: it finds its trial in the study's storage, and asks the pruner itself, since Optuna
    stores none. Outside of a search it does nothing.

    Args:
        pruner: Optuna's.
        monitor: a metric that is better the larger it is.
    """

    def __init__(self, pruner: Any, monitor: str = "val/accuracy"):
        self.pruner, self.monitor, self.reason = pruner, monitor, ""
        self.study = self.trial = None

    def setup(self, trainer: lightning.Trainer, method: lightning.LightningModule, stage: str) -> None:
        named = os.environ.get(TRIAL)
        if named is None:
            log.info("pruning: no search is on, all epochs are trained")
        elif trainer.is_global_zero:
            self.study, self.trial = open_trial(named)

    def on_validation_end(self, trainer: lightning.Trainer, method: lightning.LightningModule) -> None:
        if trainer.sanity_checking or TRIAL not in os.environ:
            return
        if self.monitor not in trainer.callback_metrics:
            found = ", ".join(sorted(map(str, trainer.callback_metrics)))
            raise KDError(f"callbacks.pruning.monitor: expected one of {found}, got '{self.monitor}'")
        value = float(trainer.callback_metrics[self.monitor])
        hopeless = self.study is not None and self._behind(value, trainer.current_epoch)
        # All ranks stop at the same epoch; only the first asks.
        if trainer.strategy.reduce_boolean_decision(hopeless, all=False):
            epoch = trainer.current_epoch + 1
            self.reason = f"pruned after epoch {epoch}: {self.monitor} {value:.4g} is behind the search's other trials"
            trainer.should_stop = True

    def _behind(self, value: float, epoch: int) -> bool:
        storage = self.study._storage
        storage.set_trial_intermediate_value(self.trial, epoch, value)
        return self.pruner.prune(self.study, storage.get_trial(self.trial))


def open_trial(named: str) -> tuple[Any, int]:
    """The study of a running trial, and the trial's id."""
    file, name, trial = named.rsplit("|", 2)
    storage = open_storage(Path(file))
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.load_study(study_name=name, storage=storage), int(trial)
