"""Read and write the directory of a run. Needs no torch.

=====================  =============================================================================
``config.yaml``        the resolved configuration
``environment.json``   package versions, git commit, hardware, checksums of data and teacher, seed, kernels
``metrics.csv``        curves
``metrics.json``       final figures
``predictions.parquet``split, row, label, logits of student and teacher for validation and test
``checkpoints/``       ``best.ckpt`` and ``last.ckpt``: what is trained, without a frozen teacher
``model/``             Hugging Face folder with tokenizer
``partners/``          the models that were trained beside the student, if they are kept
``test_reads.jsonl``   a line for each time that ``kd evaluate --split test`` read the test rows
``status.json``        running, done, pruned or failed, and why; the identity (see `kd.run.identity`)
=====================  =============================================================================
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kd.errors import KDError
from kd.run import renames
from kd.storage.files import read_json, write_json

PRODUCTS = (
    *("config.yaml", "environment.json", "metrics.csv", "metrics.json", "predictions.parquet"),
    *("checkpoints", "model", "partners", "test_reads.jsonl"),
)
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times as fast, but not always installed

OBJECTIVES = {
    "accuracy": ("validation", "accuracy"),
    "macro_f1": ("validation", "macro_f1"),
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

    @classmethod
    def finished(cls, path: str | Path) -> RunDirectory:
        """Return the directory of a run that is done.

        Raises:
            KDError: there is no run, or it is not done.
        """
        run = cls(Path(path))
        if not run.status_file.is_file():
            raise KDError(
                f"expected the directory of a kd run, found no status.json in '{path}'; "
                "give the folder that kd train printed"
            )
        status = run.status()
        state, reason = status.get("state", "in no known state"), status.get("reason", "no reason given")
        if state == "pruned":
            raise KDError(
                f"the run in '{path}' was stopped by a search ({reason}); take one that is done, or train its "
                "configuration without callbacks=[pruning]"
            )
        if state != "done":
            raise KDError(f"the run in '{path}' is {state} ({reason}); repeat kd train first")
        return run

    @property
    def is_done(self) -> bool:
        """Whether the run is done and its products are still there.

        Raises:
            KDError: there is no run.
        """
        products = (self.metrics_file, self.predictions_file, self.model / "model.safetensors")
        return self.status().get("state") == "done" and all(product.is_file() for product in products)

    def config(self) -> dict[str, Any]:
        """Read the resolved configuration, with the names of today.

        Raises:
            KDError: it cannot be read.
        """
        try:
            content = yaml.load(self.config_file.read_text(), Loader=_Loader)
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise KDError(
                f"expected a run's configuration in '{self.config_file}', found none that can be read"
            ) from error
        if not isinstance(content, dict) or "data" not in content:
            raise KDError(f"expected a run's configuration in '{self.config_file}', found something else")
        renames.current(content)
        return content

    def environment(self) -> dict[str, Any]:
        """Read the software, the machine, the data and the teacher of the run."""
        return read_json(self.path / "environment.json")

    def status(self) -> dict[str, Any]:
        return read_json(self.status_file)

    def metrics(self) -> dict[str, Any]:
        return read_json(self.metrics_file)

    def objective(self, names: str | Sequence[str]) -> float | list[float]:
        """Return the figures that a search compares: one, or several in the order of their names.

        Raises:
            KDError: the figures cannot be read.
        """
        if not isinstance(names, str):
            return [self.objective(name) for name in names]  # type: ignore[misc]
        figure: Any = self.metrics()
        for key in OBJECTIVES[names]:
            figure = figure[key]
        return float(figure)

    def set_status(self, state: str, **facts: Any) -> None:
        """Write the state: running, done, pruned or failed."""
        write_json(self.status_file, {"state": state, "time": _now(), **facts})

    def record_test_read(self, **facts: Any) -> None:
        """Record that the test rows were read again after the training."""
        with (self.path / "test_reads.jsonl").open("a") as record:
            record.write(json.dumps({"time": _now(), **facts}) + "\n")

    def test_reads(self) -> int:
        """Count how often the test rows were read: once by each finished training here, and by each later command."""
        folders = [self.path, *self.path.glob("previous/*")]
        trained = sum((folder / self.predictions_file.name).is_file() for folder in folders)
        records = [folder / "test_reads.jsonl" for folder in folders]
        return trained + sum(len(record.read_bytes().splitlines()) for record in records if record.is_file())

    def set_aside_products(self) -> Path | None:
        """Move what an earlier run left here into ``previous/<n>/``, so that nothing is overwritten."""
        found = [self.path / name for name in PRODUCTS if (self.path / name).exists()]
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
