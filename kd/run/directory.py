"""Read and write the directory of a run. Needs no torch.

=====================  =============================================================================
``config.yaml``        the resolved configuration
``environment.json``   package versions, git commit, hardware, checksums of data and teacher, seed, kernels
``metrics.csv``        curves
``learning_rates.csv`` the rates that ``optim.find`` tried, with the loss at each
``metrics.json``       final figures
``predictions.parquet``split, row, label, logits of student and teacher for validation and test
``checkpoints/``       ``best.ckpt`` and ``last.ckpt``: what is trained, without a frozen teacher
``model/``             Hugging Face folder with tokenizer
``partners/``          the models that were trained beside the student, if they are kept
``test_reads.jsonl``   a line for each time that a later command read the test rows
``cascade.json``       what ``kd cascade`` chose, and its drawing ``cascade.png``
``evaluation.json``    what ``kd evaluate --on`` measured, and its page ``evaluation/``
``explanation.json``   what ``kd explain`` found, and its page in ``explanation/``
``audit.json``         what ``kd audit`` found, and its page ``audit/index.html``
``comparison.json``    what ``kd compare`` found, and its page ``comparison/index.html``
``exports/``           what ``kd export`` wrote
``status.json``        running, done, pruned or failed, and why; the identity (see `kd.run.identity`); when done,
                       the SHA-256 of each file above ``test_reads.jsonl``
=====================  =============================================================================
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd.errors import KDError
from kd.options.sections import METRICS
from kd.run import renames
from kd.storage import audit_record, cascade_record, comparison_record, evaluation_record, explanation_record, records
from kd.storage.checksum import file_sha256
from kd.storage.products import products, require_whole

PRODUCTS = (
    *("config.yaml", "environment.json", "metrics.csv", "metrics.json", "predictions.parquet"),
    *("learning_rates.csv", "model", "partners", "checkpoints"),
)
"""Files and folders that a finished run keeps the SHA-256 of."""
KNOWN_AT_DONE = tuple(name for name in PRODUCTS if name != "checkpoints")
"""Products that must be whole for a run to count as done. Its checkpoints are not read again."""

TEST_READS = "test_reads.jsonl"
OF_LATER_COMMANDS = (
    *(TEST_READS, "exports", "benchmark.json", "benchmark.png", cascade_record.NAME, cascade_record.DRAWING),
    *(evaluation_record.NAME, evaluation_record.PAGE, explanation_record.NAME, explanation_record.PAGE),
    *(audit_record.NAME, audit_record.PAGE, comparison_record.NAME, comparison_record.PAGE),
)
"""What later commands write about a model. It does not hold for the model of the next training."""
log = logging.getLogger(__name__)
_WARNED: set[Path] = set()
"""Runs without checksums that this process has warned of."""

OBJECTIVES: dict[str, tuple[str, ...]] = {
    **{name: ("validation", name) for name in METRICS},
    "latency": ("latency", "p50_ms"),
    "parameters": ("parameters", "total"),
    "bytes": ("model_bytes",),
}
"""Where ``metrics.json`` has the figures that a search may compare. None of them reads the test split."""


@dataclass(frozen=True)
class RunDirectory:
    """The directory of a run. Its files are written in one step: each is whole or missing."""

    path: Path

    status_file = property(lambda self: self.path / "status.json")
    config_file = property(lambda self: self.path / "config.yaml")
    metrics_file = property(lambda self: self.path / "metrics.json")
    predictions_file = property(lambda self: self.path / "predictions.parquet")
    checkpoints = property(lambda self: self.path / "checkpoints")
    model = property(lambda self: self.path / "model")

    @staticmethod
    def is_one(path: Path) -> bool:
        """Return whether a path is the directory of a run, done or not."""
        return (path / "status.json").is_file()

    @classmethod
    def finished(cls, path: str | Path, reads: Sequence[str] = PRODUCTS) -> RunDirectory:
        """Return the directory of a run that is done.

        Args:
            path: of the directory.
            reads: the products that the caller will read.

        Raises:
            KDError: there is no run, it is not done, or one of these products is damaged.
        """
        run = cls(Path(path))
        if not run.status_file.is_file():
            raise KDError(
                f"expected the directory of a kd run, found no status.json in '{path}'; "
                "give the folder that kd train printed"
            )
        status = run.status()
        state, reason = status["state"], status.get("reason") or "no reason given"
        if state == "pruned":
            raise KDError(
                f"the run in '{path}' was stopped by a search ({reason}); take one that is done, or train its "
                "configuration without callbacks=[pruning]"
            )
        if state != "done":
            raise KDError(f"the run in '{path}' is {state} ({reason}); repeat kd train first")
        if not run.require_whole(reads, status) and run.path not in _WARNED:
            _WARNED.add(run.path)
            log.warning(
                "the run in %s has no checksums, because an early kd made it: damage to its files cannot be noticed",
                path,
            )
        return run

    @classmethod
    def of_model(cls, path: Path, reads: Sequence[str] = PRODUCTS) -> RunDirectory | None:
        """Return the finished run at a path, or the one in whose ``exports/`` it lies; None for any other model."""
        parent = path.resolve().parent
        place = parent.parent if parent.name == "exports" else path
        return cls.finished(place, reads) if cls.is_one(place) else None

    @property
    def is_done(self) -> bool:
        """Whether the run is done and its products are still there, each with its checksum.

        Raises:
            KDError: there is no run.
        """
        needed = (self.metrics_file, self.predictions_file, self.model / "model.safetensors")
        status = self.status()
        if status["state"] != "done" or not all(product.is_file() for product in needed):
            return False
        try:
            self.require_whole(KNOWN_AT_DONE, status)
        except KDError as error:
            log.warning("%s", error)
            return False
        return True

    def require_whole(self, names: Sequence[str] = PRODUCTS, status: Mapping[str, Any] | None = None) -> bool:
        """Compare the checksums of some products; return False if the run has none.

        Args:
            names: the products.
            status: what `status` returns, if it was read already.

        Raises:
            KDError: a product is missing, was changed, or is not of this run.
        """
        expected = (self.status() if status is None else status).get("products")
        if expected is not None:
            require_whole(self.path, expected, names)
        return expected is not None

    def config(self) -> dict[str, Any]:
        """Read the resolved configuration, with the names of today.

        Raises:
            KDError: it cannot be read.
        """
        content = records.read_configuration(self.config_file)
        try:
            renames.current(content)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise KDError(
                f"'{self.config_file}' is damaged ({type(error).__name__}: {error}); train the run again"
            ) from error
        records.require(content, records.Configuration, self.config_file)
        return content

    def environment(self) -> dict[str, Any]:
        """Read the software, the machine, the data and the teacher of the run."""
        return records.read(self.path / "environment.json", records.Environment)

    def status(self) -> dict[str, Any]:
        return records.read(self.status_file, records.Status)

    def metrics(self) -> dict[str, Any]:
        return records.read(self.metrics_file, records.Metrics)

    def objective(self, names: str | Sequence[str]) -> float | list[float]:
        """Return the figures that a search compares: one, or several in the order of their names.

        Raises:
            KDError: the figures cannot be read.
        """
        if not isinstance(names, str):
            return [self.objective(name) for name in names]  # type: ignore[misc]
        figure: Any = self.metrics()
        for key in OBJECTIVES[names]:
            figure = (figure or {}).get(key)
        if figure is None:
            lacking = ".".join(OBJECTIVES[names])
            raise KDError(
                f"'{self.metrics_file}' lacks {lacking}, which an early kd did not measure; train it again (rerun=true)"
            )
        return float(figure)

    def set_status(self, state: str, **facts: Any) -> None:
        """Write the state: running, done, pruned or failed; with done, also the checksum of each product."""
        if state == "done":
            facts["products"] = {name: file_sha256(self.path / name) for name in products(self.path, PRODUCTS)}
        records.write(self.status_file, {"format": records.FORMAT, "state": state, "time": _now(), **facts})

    def record_test_read(self, **facts: Any) -> None:
        """Record that the test rows were read again after the training. A link at the file's place is not followed.

        Raises:
            KDError: the file cannot be written.
        """
        place = self.path / TEST_READS
        line = json.dumps({"time": _now(), **facts}) + "\n"
        try:
            # No link is followed, and a named pipe without a reader is an error instead of a wait.
            no_link, no_wait = getattr(os, "O_NOFOLLOW", 0), getattr(os, "O_NONBLOCK", 0)
            opened = os.open(place, os.O_WRONLY | os.O_APPEND | os.O_CREAT | no_link | no_wait, 0o666)
            with os.fdopen(opened, "a") as record:
                record.write(line)
        except OSError as error:
            raise KDError(
                f"expected to record the reading of the test rows in '{place}', found a file that cannot be written "
                f"({error.strerror}); copy the run to a folder of your own"
            ) from error

    def test_reads(self) -> int:
        """Count how often the test rows were read: once by each finished training here, and by each later command."""
        folders = [self.path, *self.path.glob("previous/*")]
        trained = sum((folder / self.predictions_file.name).is_file() for folder in folders)
        reads = [folder / TEST_READS for folder in folders]
        return trained + sum(len(record.read_bytes().splitlines()) for record in reads if record.is_file())

    def set_aside_products(self) -> Path | None:
        """Move what an earlier run left here into ``previous/<n>/``, so that nothing is overwritten."""
        names = (*PRODUCTS, *OF_LATER_COMMANDS)
        found = [self.path / name for name in names if (self.path / name).exists() or (self.path / name).is_symlink()]
        found += self.path.glob("metrics.before-*.csv")
        if not found:
            return None
        previous = self.path / "previous"
        previous.mkdir(exist_ok=True)
        place = previous / str(1 + max((int(p.name) for p in previous.iterdir() if p.name.isdigit()), default=0))
        place.mkdir()
        for product in found:
            shutil.move(product, place / product.name)
        return place


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
