"""Restore what a training changes in its process, for callers whose process goes on, such as a notebook."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sys
import warnings
from collections.abc import Iterator
from unittest import mock

from hydra.core.hydra_config import HydraConfig
from omegaconf.basecontainer import BaseContainer


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Restore at the end: seeds, threads and switches of torch, Hydra, warnings, logging, and the environment."""
    import numpy as np
    import torch
    import transformers

    hydra, progress_bar = HydraConfig.instance(), transformers.utils.logging.is_progress_bar_enabled()
    cudnn, verbosity = torch.backends.cudnn, transformers.logging.get_verbosity()
    before = random.getstate(), np.random.get_state(), torch.get_num_threads(), cudnn.benchmark, cudnn.deterministic
    modes = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ))
        stack.enter_context(mock.patch.dict(BaseContainer._resolvers))  # Hydra's, such as ${now:}
        stack.enter_context(mock.patch.object(hydra, "cfg", hydra.cfg))
        stack.enter_context(mock.patch.object(sys, "argv", list(sys.argv)))
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(loggers())
        stack.enter_context(torch.random.fork_rng())
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
            torch.set_num_threads(before[2])
            cudnn.benchmark, cudnn.deterministic = before[3:]
            torch.use_deterministic_algorithms(modes[0], warn_only=modes[1])
            transformers.logging.set_verbosity(verbosity)
            if progress_bar:
                transformers.utils.logging.enable_progress_bar()


@contextlib.contextmanager
def loggers() -> Iterator[None]:
    """Restore the handlers and levels of all loggers at the end."""
    found = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    before = [(one, list(one.handlers), one.level, one.propagate) for one in found if isinstance(one, logging.Logger)]
    try:
        yield
    finally:
        for one, handlers, level, propagate in before:
            one.handlers[:], one.propagate = handlers, propagate
            one.setLevel(level)


@contextlib.contextmanager
def logged(*handlers: logging.Handler) -> Iterator[None]:
    """Print what kd logs, and give it to these handlers too, which are closed at the end."""
    logger, handlers = logging.getLogger("kd"), (logging.StreamHandler(sys.stdout), *handlers)
    with loggers():
        logger.propagate, logger.handlers[:] = False, handlers
        logger.setLevel(logging.INFO)
        for handler in handlers:
            handler.setFormatter(logging.Formatter("[%(asctime)s] %(message)s", "%H:%M:%S"))
        try:
            yield
        finally:
            for handler in handlers:
                handler.close()
