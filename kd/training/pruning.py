"""Stop hopeless runs of a search: after each epoch, Optuna compares the run with the search's other runs."""

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
    """Report a metric to the run's trial after each epoch's validation, and stop the run if the pruner decides so.

    A job is a process of its own. It finds its trial in the study's storage and has its own pruner, which Optuna does
    not store. Outside of a search, the callback does nothing.

    Args:
        pruner: one of ``optuna.pruners``.
        monitor: a metric of which larger values are better.
    """

    def __init__(self, pruner: Any, monitor: str = "val/accuracy"):
        self.pruner, self.monitor, self.reason = pruner, monitor, ""
        self.study: Any = None
        self.trial: Any = None

    def setup(self, trainer: lightning.Trainer, method: lightning.LightningModule, stage: str) -> None:
        named = os.environ.get(TRIAL)
        if named is None:
            log.info("pruning: this is no search, all epochs are trained")
        elif trainer.is_global_zero:
            file, name, trial = named.rsplit("|", 2)
            storage = open_storage(Path(file))
            import optuna

            optuna.logging.set_verbosity(optuna.logging.WARNING)
            self.study, self.trial = optuna.load_study(study_name=name, storage=storage), int(trial)

    def on_validation_end(self, trainer: lightning.Trainer, method: lightning.LightningModule) -> None:
        if trainer.sanity_checking or TRIAL not in os.environ:
            return
        if self.monitor not in trainer.callback_metrics:
            found = ", ".join(sorted(map(str, trainer.callback_metrics)))
            raise KDError(f"callbacks.pruning.monitor: expected one of {found}, got '{self.monitor}'")
        value = float(trainer.callback_metrics[self.monitor])
        hopeless = False
        if self.study:
            storage = self.study._storage
            storage.set_trial_intermediate_value(self.trial, trainer.current_epoch, value)
            hopeless = self.pruner.prune(self.study, storage.get_trial(self.trial))
        # All ranks stop at the same epoch; only rank 0 has the trial.
        if trainer.strategy.reduce_boolean_decision(hopeless, all=False):
            epoch = trainer.current_epoch + 1
            self.reason = f"pruned after epoch {epoch}: {self.monitor} {value:.4g} is behind the search's other trials"
            trainer.should_stop = True
