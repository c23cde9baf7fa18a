"""Give up hopeless runs of a search: Lightning tells Optuna how a run goes, Optuna says whether to go on."""

from __future__ import annotations

import logging
import os

import lightning

from kd.errors import KDError

log = logging.getLogger(__name__)

TRIAL = "KD_OPTUNA_TRIAL"
"""In the environment of a search's job: the file with the study, its name, and the number of the trial."""


class Pruning(lightning.Callback):
    """After each epoch's validation, report a metric to the run's trial, and stop where its study's pruner says so.

    The job is a process of its own: it finds its trial in the study's storage. Outside of a search it does nothing.
    A search with several objectives has no pruning: Optuna knows none.

    Args:
        monitor: the metric, in the direction of the study.
    """

    def __init__(self, monitor: str = "val/accuracy"):
        self.monitor, self.reason = monitor, ""
        self.trial = None

    def setup(self, trainer: lightning.Trainer, method: lightning.LightningModule, stage: str) -> None:
        named = os.environ.get(TRIAL)
        if named and trainer.is_global_zero:
            self.trial = open_trial(named)
        elif not named:
            log.info("pruning: no search is on, all epochs are trained")

    def on_validation_end(self, trainer: lightning.Trainer, method: lightning.LightningModule) -> None:
        if trainer.sanity_checking or TRIAL not in os.environ:
            return
        if self.monitor not in trainer.callback_metrics:
            found = ", ".join(sorted(map(str, trainer.callback_metrics)))
            raise KDError(f"callbacks.pruning.monitor: expected one of {found}, got '{self.monitor}'")
        hopeless, epoch = False, trainer.current_epoch
        if self.trial is not None:
            value = float(trainer.callback_metrics[self.monitor])
            self.trial.report(value, epoch)
            hopeless = self.trial.should_prune()
        # All ranks stop at the same epoch; only the first asks.
        if trainer.strategy.reduce_boolean_decision(hopeless, all=False):
            value = float(trainer.callback_metrics[self.monitor])
            self.reason = f"pruned after epoch {epoch + 1}: {self.monitor} {value:.4g} is behind the other trials"
            trainer.should_stop = True


def open_trial(named: str):
    """The running trial that `TRIAL` names.

    Raises:
        KDError: without Optuna, or for a study with several objectives.
    """
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise KDError("callbacks=[pruning] needs Optuna; pip install 'kd[optuna]'") from error
    file, study_name, number = named.rsplit("|", 2)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.JournalStorage(JournalFileBackend(file))
    raise NotImplementedError(study_name, number)
