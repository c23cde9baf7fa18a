"""``kd train``: the Hydra application. One run, or with ``-m`` a sweep; torch is imported where a run begins."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from kd import sweep
from kd.config import targets
from kd.config.folder import configuration_folder, one_sentence
from kd.errors import KDError, Pruned
from kd.run import renames
from kd.runtime import ranks
from kd.runtime.requeue import requeue_on_signal
from kd.storage.paths import plain_name

log = logging.getLogger(__name__)

HELP = """usage: kd train [-m] [GROUP=CHOICE | OPTION=VALUE | +OPTION=VALUE]...

Train one student, or with -m one for every combination of values, as temperature=1,2,4.
--config-dir DIR   put your own conf/ over that of kd
--cfg job          print the configuration and train nothing
--hydra-help       what else Hydra takes

groups and their choices:
{choices}

options (of the default choices; kd train --help student=dan shows those of others):
{options}"""


def main(arguments: list[str]) -> int:
    """Run Hydra on the arguments; a sweep's jobs are single runs of this command."""
    if {"-h", "--help"} & set(arguments):
        return show_help(arguments)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us as they are; kd.cli decides what to show
    before = sys.argv
    own, mistakes = len(sweep.OPENED), []
    if name := ranks.default_name():
        os.environ["KD_RUN"] = name  # conf/config.yaml
    try:
        requeue_on_signal()
        with ranks.rendezvous(arguments) as arguments, mode_as_said(arguments), checked_compositions():
            sys.argv = [before[0], *arguments]
            application = hydra.main(version_base="1.3", config_path=str(configuration_folder()), config_name="config")
            application(kept_apart(mistakes))()
            if mistakes:  # within the meeting, whose other ranks hear the reason
                raise mistakes[0]
    except (HydraException, OmegaConfBaseException) as error:
        if "optuna" in str(error) and not find_spec("optuna"):
            raise KDError("hydra/sweeper=optuna needs Optuna; pip install 'kd[optuna]'") from error
        raise KDError(one_sentence(error)) from error
    except ValueError as error:
        if "Config group override" in str(error):
            raise KDError(f"{error}; say teacher=none, loss=[] or callbacks=[] for nothing") from error
        raise
    finally:
        sys.argv = before
        opened, sweep.OPENED[own:] = sweep.OPENED[own:], []
        for one in opened:
            one.close()
            interrupted = isinstance(sys.exc_info()[1], (KeyboardInterrupt, SystemExit))
            after_sweep(one.place, report=one.master.hydra.launcher.report and not interrupted)
    for one in opened:
        one.refuse_failures()
    return 0


def show_help(arguments: list[str]) -> int:
    """Print the groups with their choices, and every option of the configuration that the other arguments make."""
    from kd.config import reference
    from kd.config.compose import composed

    parser = argparse.ArgumentParser(prog="kd train", add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", type=Path)
    known, rest = parser.parse_known_args(arguments)
    config = composed([word for word in rest if not word.startswith("-")], known.config_dir)
    print(HELP.format(choices=reference.groups_text(), options=reference.help_text(config)))
    return 0


@contextlib.contextmanager
def mode_as_said(arguments: list[str]) -> Iterator[None]:
    """Spare a sweep's job 0.2 s: Hydra composes everything once more, to see whether it asks for a multirun itself."""
    ask = Hydra.get_mode
    if "hydra.mode=RUN" in arguments:
        Hydra.get_mode = lambda *_, **__: RunMode.RUN
    try:
        yield
    finally:
        Hydra.get_mode = ask


@contextlib.contextmanager
def checked_compositions() -> Iterator[None]:
    """Look at what Hydra composes before it calls anything that stands in it; see `kd.config.targets`."""
    compose, refused = ConfigLoaderImpl.load_configuration, []

    def load_configuration(self, *arguments, run_mode: RunMode, **options) -> DictConfig:
        if refused:  # Hydra composes once to learn the mode, and takes an error for no answer
            raise refused[0]
        config = compose(self, *arguments, run_mode=run_mode, **options)
        try:
            renames.current(config, say=True)
            targets.check_composed(config, multirun=run_mode == RunMode.MULTIRUN)
            if "sweep" in config:
                plain_name(config.sweep, "sweep")
        except KDError as error:
            refused.append(error)
            raise
        return config

    ConfigLoaderImpl.load_configuration = load_configuration
    try:
        yield
    finally:
        ConfigLoaderImpl.load_configuration = compose


def kept_apart(mistakes: list[KDError]) -> Callable[[DictConfig], float | list[float] | None]:
    """`job`, with a single run's mistake kept for later: Hydra would print a line of its own above its sentence."""

    def one(config: DictConfig) -> float | list[float] | None:  # no partial: Hydra names logs after where it is written
        try:
            return job(config)
        except KDError as error:
            if HydraConfig.get().mode != RunMode.RUN:
                raise
            mistakes.append(error)
            return None

    return one


def job(config: DictConfig) -> float | list[float] | None:
    """One run; returns what a search compares, None for a run that it gave up."""
    # Ranks are started with this process's arguments, and the command's name is one of them.
    if sys.argv[1:2] != ["train"]:
        sys.argv = [sys.argv[0], "train", *sys.argv[1:]]
    try:
        return train(config)
    except Pruned as pruned:
        log.info("%s", pruned)
        return None


def train(config: DictConfig) -> float | list[float] | None:
    """Train one student in Hydra's output directory; see `kd.training.single_run.train`."""
    from kd.training import single_run

    return single_run.train(config, Path(HydraConfig.get().runtime.output_dir))


def after_sweep(sweep_dir: Path, report: bool) -> None:
    """What follows a sweep: the table of its jobs, and the report of all runs below its folder."""
    sweep.print_table(sweep_dir)
    if report:
        from kd.report import write_report

        try:
            print(f"report: {write_report([sweep_dir], sweep_dir / 'report')}")
        except KDError as error:  # such as a sweep of which every job failed
            print(f"no report: {error}")
