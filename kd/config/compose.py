"""Compose the configuration of a run from overrides."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from kd.config import targets
from kd.config.folder import composing, configuration_folder, overrides, require_single_choices
from kd.config.own_files import checked_files
from kd.run import renames
from kd.runtime.launch import quoted


def composed(words: Iterable[str], config_dir: Path | None = None) -> DictConfig:
    """Compose a configuration as ``kd train`` would.

    Args:
        words: overrides, as on the command line.
        config_dir: the user's own ``conf/``, whose files are found beside those of kd.

    Raises:
        KDError: Hydra refuses an override, or the configuration names code that it may not name.
    """
    own = [] if config_dir is None else [f"hydra.searchpath=[{quoted(f'file://{config_dir.resolve()}')}]"]
    folder = str(configuration_folder())
    with composing(), checked_files(), initialize_config_dir(folder, version_base="1.3"):
        config = compose("config", [*own, *overrides(words)], return_hydra_config=True)
    require_single_choices(config)
    renames.current(config, say=True)
    targets.check_composed(config, multirun=False)
    HydraConfig.instance().set_config(config)
    with open_dict(config):
        del config["hydra"]
    return config
