"""A run directory on disk. Reading one needs no torch.

=====================  =============================================================================
``config.yaml``        the resolved configuration
``environment.json``   package versions, git commit, hardware, checksums of data and teacher, seed
``metrics.csv``        curves
``metrics.json``       final figures
``predictions.parquet``split, row, label, logits of student and teacher for validation and test
``checkpoints/``       ``best.ckpt`` and ``last.ckpt``: what learns, and no frozen teacher
``model/``             Hugging Face folder with tokenizer
``partners/``          the models that learnt beside it, where they are kept
``test_reads.jsonl``   when ``kd evaluate --split test`` read the test rows again, a line each time
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
    "config.yaml",
    "environment.json",
    "metrics.csv",
    "metrics.json",
    "predictions.parquet",
    "checkpoints",
    "model",
    "partners",
    "test_reads.jsonl",
)
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, ten times as fast, where it is there


OBJECTIVES = {
    "accuracy": ("validation", "accuracy"),
    "macro_f1": ("validation", "macro_f1"),
    "latency": ("latency", "p50_ms"),
    "parameters": ("parameters", "total"),
    "bytes": ("model_bytes",),
}
"""Where ``metrics.json`` has the figures that a search may compare; none is of the test split."""


@dataclass(frozen=True)
class RunDirectory:
    """The places in a run directory, and how they are read and written: whole or not at all."""

    path: Path

    @classmethod
    def finished(cls, path: str | Path) -> RunDirectory:
        """A run that ended well.

        Raises:
            KDError: where there is no run, or one that is not done.
        """
        run = cls(Path(path))
        if not run.status_file.is_file():
            raise KDError(
                f"expected the directory of a kd run, found no status.json in '{path}'; "
                "give the folder that kd train printed"
            )
        state = run.status()
        if state.get("state") == "pruned":
            raise KDError(
                f"the run in '{path}' was given up by a search ({state.get('reason', 'no reason given')}); take one "
                "that is done, or train its configuration without callbacks=[pruning]"
            )
        if state.get("state") != "done":
            known = state.get("state", "in no known state")
            raise KDError(
                f"the run in '{path}' is {known} ({state.get('reason', 'no reason given')}); repeat kd train first"
            )
        return run

    @property
    def status_file(self) -> Path:
        return self.path / "status.json"

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.json"

    @property
    def predictions_file(self) -> Path:
        return self.path / "predictions.parquet"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def is_done(self) -> bool:
        """Whether it ended well, and nothing of what it left is missing since.

        Raises:
            KDError: where there is no run.
        """
        products = (self.metrics_file, self.predictions_file, self.model / "model.safetensors")
        return self.status().get("state") == "done" and all(product.is_file() for product in products)

    def config(self) -> dict[str, Any]:
        """The resolved configuration.

        Raises:
            KDError: where it cannot be read.
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
        """What the run stood on."""
        return read_json(self.path / "environment.json")

    def status(self) -> dict[str, Any]:
        return read_json(self.status_file)

    def metrics(self) -> dict[str, Any]:
        return read_json(self.metrics_file)

    def objective(self, names: str | Sequence[str]) -> float | list[float]:
        """What a search compares: one figure, or several in the order of their names.

        Raises:
            KDError: a name that is not in `OBJECTIVES`, or figures that cannot be read.
        """
        if not isinstance(names, str):
            return [self.objective(name) for name in names]
        if names not in OBJECTIVES:
            raise KDError(f"objective: expected some of {', '.join(OBJECTIVES)}, got '{names}'")
        figure: Any = self.metrics()
        for key in OBJECTIVES[names]:
            figure = figure[key]
        return float(figure)

    def set_status(self, state: str, **facts: Any) -> None:
        """``state`` is running, done, pruned or failed."""
        write_json(self.status_file, {"state": state, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **facts})

    def record_test_read(self, **facts: Any) -> None:
        """Note that the test rows were read once more than training does."""
        line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **facts})
        with (self.path / "test_reads.jsonl").open("a") as record:
            record.write(line + "\n")

    def test_reads(self) -> int:
        """How often the test rows were read: once by every training that ended here, and by each further look."""
        trained = [self.predictions_file, *self.path.glob(f"previous/*/{self.predictions_file.name}")]
        looks = [self.path / "test_reads.jsonl", *self.path.glob("previous/*/test_reads.jsonl")]
        lines = (place.read_bytes().splitlines() for place in looks if place.is_file())
        return sum(place.is_file() for place in trained) + sum(map(len, lines))

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
