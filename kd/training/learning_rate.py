"""Find a learning rate before the training: raise it step by step, and take the one at which the loss falls fastest.

Smith 2017, https://arxiv.org/abs/1506.01186
"""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
import pandas
from lightning.pytorch.tuner import Tuner
from omegaconf import DictConfig

from kd.config import build
from kd.config.make import make
from kd.config.trainer import section
from kd.data.module import TextDataModule
from kd.errors import KDError, TrainingFailed
from kd.methods.base import Method
from kd.run.directory import RunDirectory
from kd.runtime.devices import global_batch

log = logging.getLogger(__name__)

STEPS, LOWEST, HIGHEST = 100, 1e-3, 1e2
"""Steps of the search, and the first and the last rate as multiples of ``optim.optimizer.lr``."""
SMOOTHING = 0.98
"""What Lightning keeps of the mean of the losses at each step."""
CURVE = "learning_rates.csv"


def set_rate(config: DictConfig, run: RunDirectory, method: Method, data: TextDataModule) -> None:
    """Find the learning rate if ``optim.find`` is set, or log the one that ``optim.scale`` has adapted.

    Raises:
        KDError: at no rate does the loss fall.
    """
    if config.optim.get("find"):
        use_found_rate(config, run, method, data)
    elif config.optim.scale != "none":
        log.info(
            "learning rate: %.4g, for a global batch of %d rows (optim.scale=%s from %g at %d rows)",
            *(build.optimizer(config).keywords["lr"], global_batch(config), config.optim.scale),
            *(config.optim.optimizer.lr, config.optim.reference_batch),
        )


def use_found_rate(config: DictConfig, run: RunDirectory, method: Method, data: TextDataModule) -> None:
    """Find a learning rate with a copy of the method, write its curve, and give the rate to the method's optimizer.

    Raises:
        KDError: at no rate does the loss fall.
    """
    given = config.optim.optimizer.lr
    trainer = make(
        section(config, run.path, "trainer"),
        **{"logger": False, "callbacks": [], "enable_checkpointing": False, "enable_progress_bar": False},
        **{"max_epochs": -1, "max_steps": STEPS, "check_val_every_n_epoch": 10**6, "num_sanity_val_steps": 0},
        default_root_dir=str(run.path),
    )
    rates = {"min_lr": LOWEST * given, "max_lr": HIGHEST * given, "num_training": STEPS}
    try:
        finder: Any = Tuner(trainer).lr_find(copy.deepcopy(method), datamodule=data, update_attr=False, **rates)
    except TrainingFailed as error:
        raise KDError(
            f"optim.find tries rates up to {HIGHEST * given:g}; lower optim.optimizer.lr ({error})"
        ) from error
    if finder:  # Lightning 2.6 divides its running mean of n losses by 1 - SMOOTHING ** (n + 1): the first is halved
        losses = np.array(finder.results["loss"])
        steps = np.arange(1, len(losses) + 1)
        finder.results["loss"] = list(losses * (1 - SMOOTHING ** (steps + 1)) / (1 - SMOOTHING**steps))
    found = finder.suggestion() if finder else None
    if not found:
        raise KDError(
            f"optim.find: expected a learning rate from {LOWEST * given:g} to {HIGHEST * given:g} at which the loss "
            "falls, found none; lower optim.optimizer.lr, or give more rows"
        )
    curve = pandas.DataFrame(finder.results)
    curve.to_csv(run.path / CURVE, index=False)
    log.info("learning rate: %.3g, where the loss fell fastest of %d rates; see %s", found, len(curve), CURVE)
    method.recipe = replace(method.recipe, optimizer=partial(cast(Any, method.recipe.optimizer), lr=found))
