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
from typing import Any
from unittest import mock

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from kd.config import targets
from kd.config.folder import composing, configuration_folder, one_sentence, overrides, require_single_choices, resolving
from kd.config.own_files import checked_files
from kd.errors import KDError, Pruned
from kd.run import renames
from kd.runtime import ranks
from kd.runtime.requeue import requeue_on_signal
from kd.storage.paths import plain_name, refuse_link
from kd.sweep import OPENED, print_table

log = logging.getLogger(__name__)

HELP = """usage: kd train [-m] [GROUP=CHOICE | OPTION=VALUE | +OPTION=VALUE]...

Train one student, or with -m one for every combination of values
(temperature=1,2,4).
--config-dir DIR   put your own conf/ over that of kd
--cfg job          print the configuration and train nothing
--hydra-help       what else Hydra takes

groups and their choices:
{choices}

options of the default choices (kd train --help student=dan shows others):
{options}"""


def main(arguments: list[str]) -> int:
    """Run Hydra on the arguments; a sweep's jobs are single runs of this command."""
    if {"-h", "--help"} & set(arguments):
        return show_help(arguments)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us as they are; kd.cli decides what to show
    before, arguments = sys.argv, overrides(arguments)
    own, mistakes = len(OPENED), list[KDError]()
    if name := ranks.default_name():
        os.environ["KD_RUN"] = name  # conf/config.yaml
    try:
        requeue_on_signal()
        with ranks.rendezvous(arguments) as arguments, checked_compositions(arguments):
            sys.argv = [before[0], *arguments]
            application = hydra.main(version_base="1.3", config_path=str(configuration_folder()), config_name="config")
            application(kept_apart(mistakes))()
            if mistakes:  # raised here, so that the other ranks receive the reason
                raise mistakes[0]
    except (KDError, HydraException, OmegaConfBaseException) as error:
        if "optuna" in str(error) and not find_spec("optuna"):
            raise KDError("hydra/sweeper=optuna needs Optuna; pip install 'kd[optuna]'") from error
        raise error if isinstance(error, KDError) else KDError(one_sentence(error)) from error
    finally:
        sys.argv = before
        opened, OPENED[own:] = OPENED[own:], []
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
def checked_compositions(arguments: list[str]) -> Iterator[None]:
    """Check each configuration that Hydra composes before Hydra calls anything that it names (`kd.config.targets`).

    Hydra has no public hook at this moment: its callbacks are made from the very configuration that is to be checked.
    """
    compose, refused = ConfigLoaderImpl.load_configuration, list[KDError]()

    def load_configuration(self: ConfigLoaderImpl, *parts: Any, **options: Any) -> DictConfig:
        if refused:  # Hydra composes once to find the mode, and ignores an error there
            raise refused[0]
        try:
            with composing():
                config = compose(self, *parts, **options)
            require_single_choices(config)
            renames.current(config, say=True)
            targets.check_composed(config, multirun=options["run_mode"] == RunMode.MULTIRUN)
            if "sweep" in config:
                plain_name(config.sweep, "sweep")
            if options["run_mode"] == RunMode.RUN:
                refuse_links(config)
        except KDError as error:
            refused.append(error)
            raise
        return config

    with contextlib.ExitStack() as stack:
        stack.enter_context(checked_files())
        stack.enter_context(mock.patch.object(ConfigLoaderImpl, "load_configuration", load_configuration))
        if "hydra.mode=RUN" in arguments:  # a sweep's job: Hydra need not compose once more to find the mode, 0.2 s
            stack.enter_context(mock.patch.object(Hydra, "get_mode", lambda *_, **__: RunMode.RUN))
        yield


def refuse_links(config: DictConfig) -> None:
    """Refuse links that lead out of the run directory where Hydra itself will write: its log and its own folder."""
    with mock.patch.object(HydraConfig.instance(), "cfg", config):  # ${hydra:...} refers to it, as it will later
        run, names = Path(config.hydra.run.dir), [f"{config.hydra.job.name}.log", config.hydra.output_subdir]
    for name in filter(None, names):
        for place in [run / name, *(run / name).glob("*")]:
            refuse_link(run, place)


def kept_apart(mistakes: list[KDError]) -> Callable[[DictConfig], float | list[float] | None]:
    """Return `job`, which keeps a single run's mistake for later: Hydra would print a line of its own above it."""

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
    """Do one run; return the figures that a search compares, None for a run that the search pruned."""
    # Ranks are started with this process's arguments, and the command's name is one of them.
    if sys.argv[1:2] != ["train"]:
        sys.argv = [sys.argv[0], "train", *sys.argv[1:]]
    from kd.training import single_run

    try:
        with resolving():
            return single_run.train(config, Path(HydraConfig.get().runtime.output_dir))
    except Pruned as pruned:
        log.info("%s", pruned)
        return None


def after_sweep(sweep_dir: Path, report: bool) -> None:
    """Print the table of a sweep's jobs, and write the report of all runs below its folder."""
    print_table(sweep_dir)
    if report:
        from kd.report import write_report

        try:
            print(f"report: {write_report([sweep_dir], sweep_dir / 'report')}")
        except KDError as error:  # such as a sweep of which every job failed
            print(f"no report: {error}")
