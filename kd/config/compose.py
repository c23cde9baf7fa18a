"""Compose the configuration of a run from overrides."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from kd.config import targets
from kd.config.folder import composing, configuration_folder, require_single_choices
from kd.run import renames


def composed(overrides: Iterable[str], config_dir: Path | None = None) -> DictConfig:
    """Compose a configuration as ``kd train`` would.

    Args:
        overrides: as on the command line.
        config_dir: the user's own ``conf/``, whose files are found beside those of kd.

    Raises:
        KDError: Hydra refuses an override, or the configuration names code that it may not name.
    """
    own = [] if config_dir is None else [f"hydra.searchpath=[file://{config_dir.resolve()}]"]
    with composing(), initialize_config_dir(str(configuration_folder()), version_base="1.3"):
        config = compose("config", [*own, *renames.overrides(overrides)], return_hydra_config=True)
    require_single_choices(config)
    renames.current(config, say=True)
    targets.check_composed(config, multirun=False)
    HydraConfig.instance().set_config(config)
    with open_dict(config):
        del config["hydra"]
    return config
