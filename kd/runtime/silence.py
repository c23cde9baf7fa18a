"""Silence messages of libraries about things that are as they should be."""

from __future__ import annotations

import logging
import warnings

import transformers


def quiet() -> None:
    """Silence these messages in this process."""
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
    warnings.filterwarnings("ignore", message="No (positive|negative) samples in targets.*")  # few validation rows
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")  # a frozen encoder is meant
    warnings.filterwarnings("ignore", message=".*Experiment logs directory.*exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*is smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=".*`srun` command is available on your system but is not used.*")
    warnings.filterwarnings("ignore", message=".*doesn't support sharding model layers.*")  # nothing is sharded there
    warnings.filterwarnings("ignore", message=".*_check_is_size.*")  # torch's own use of it, in an exported program
    for name in ("pytorch.utilities.rank_zero", "fabric.utilities.seed", "fabric.utilities.distributed"):
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)
    if logging.getLogger().handlers:  # they print everything already, so these would print it twice
        for name in ("lightning", "datasets", "huggingface_hub"):
            logging.getLogger(name).handlers.clear()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
