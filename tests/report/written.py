"""Run directories and arms written by hand, and what `kd report` makes of them."""

import csv
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow
import pyarrow.parquet
import yaml

from benchmarks.report import CONFIG, ROWS, answers, write_copies
from benchmarks.report import write_run as write_whole_run
from kd.cli import main
from kd.report import write_report
from kd.run.directory import RunDirectory
from kd.storage.files import write_json


class Runs:
    """Writes run directories with outputs for one test set."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.generator = np.random.default_rng(0)
        self.labels = {name: self.generator.integers(2, size=rows) for name, rows in ROWS.items()}
        self.hard = {name: self.generator.random(rows) for name, rows in ROWS.items()}
        self.teacher = self.answers(0.85)

    def answers(self, accuracy: float) -> dict:
        return {name: answers(self.labels[name], self.hard[name], accuracy, self.generator) for name in ROWS}

    def write(self, name: str, method: str, accuracy=0.75, logits=None, data="rows", **changes) -> Path:
        config = json.loads(json.dumps(CONFIG)) | {key: value for key, value in changes.items() if key in CONFIG}
        config["choices"] |= {"method": method} | changes.get("of_choices", {})
        write_copies(config)
        path = self.folder / name
        write_whole_run(path, config, self.labels, logits or self.answers(accuracy), self.teacher)
        environment = RunDirectory(path).environment()
        environment["data"]["test"] = data
        environment["command"] = ["/somewhere/bin/kd", "train", f"method={method}", f"seed={config['seed']}", "data=x"]
        write_json(path / "environment.json", environment)
        write_json(path / "status.json", {"state": "done"})  # without checksums, so that tests may change the files
        return path

    def grid(self, seeds=(0, 1, 2)) -> None:
        for seed in seeds:
            self.write(f"alone-{seed}", "supervised", 0.72, seed=seed)
            for number, temperature in enumerate((1, 2, 4)):
                for alpha in (0.5, 0.9):
                    accuracy = 0.73 + 0.03 * number * alpha
                    name = f"taught-{temperature}-{alpha}-{seed}"
                    self.write(name, "distillation", accuracy, seed=seed, temperature=temperature, alpha=alpha)


def page(folder: Path) -> str:
    return write_report([folder], folder / "report").read_text()


def words(text: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())


def table(folder: Path, name: str) -> list[dict[str, str]]:
    """Read the rows of a table's CSV file; none where there is no such table."""
    path = folder / "report" / "tables" / f"{name}.csv"
    return list(csv.DictReader(path.read_text().splitlines())) if path.is_file() else []


FEW = 200


def write_run(
    path: Path,
    method="supervised",
    embeddings="pca",
    correct=160,
    shift=0,
    seed=0,
    test="rows",
    of_method=None,
    rows=None,
    data=None,
    **changes,
):
    """Write a run with ``correct`` of 200 rows right, beginning at row ``shift``; the teacher has 180 right.

    Args:
        rows: checksums of further splits.
        data: further options of the data.
    """
    path.mkdir(parents=True)
    labels = np.arange(FEW) % 2
    right = (np.arange(FEW) - shift) % FEW < correct
    logits = np.eye(2)[np.where(right, labels, 1 - labels)]
    teacher = np.eye(2)[np.where(np.arange(FEW) < 180, labels, 1 - labels)]
    table = {"split": ["test"] * FEW, "label": labels, "logits": list(logits), "teacher_logits": list(teacher)}
    pyarrow.parquet.write_table(pyarrow.table(table), path / "predictions.parquet")
    choices = {
        "method": method,
        "student": "dan",
        "embeddings": embeddings,
        "tokenizer": "words",
        "teacher": "hf",
        "data": "files",
    }
    config = {"choices": choices, "seed": seed, "alpha": 0.5, "temperature": 2.0, "label_smoothing": 0.0, **changes}
    config |= {
        "loss": {"soft_target": {"_target_": "x", "temperature": config["temperature"], "weight": 1.0}},
        "data": {"path": "a"} | (data or {}),
        "embeddings": {"_target_": embeddings, "std": 0.1},
    }
    config["method"] = {"_target_": method} | (of_method or {})
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    cost = {
        "parameters": {"total": 1_234_567, "without_embeddings": 34_567},
        "model_bytes": 4_900_000,
        "training_seconds": 12.0,
    }
    cost["latency"] = {"p50_ms": 0.5, "threads": 2}
    agreement = float((logits.argmax(1) == teacher.argmax(1)).mean())
    metrics = {**choices, **cost, "seed": seed, "padding_share": 0.03, "weights": "best on validation"}
    metrics |= {"test": {"rows": FEW, "agreement": agreement}, "teacher_cost": {"name": "asset:big", **cost}}
    (path / "metrics.json").write_text(json.dumps(metrics))
    environment = {"data": {"test": test} | (rows or {}), "teacher": {"checksum": "abc"}}
    (path / "environment.json").write_text(json.dumps(environment))
    write_json(path / "status.json", {"state": "done"})  # without checksums, so that tests may change the files


def printed(capsys, *folders) -> list[str]:
    assert main(["report", *map(str, folders)]) == 0
    return capsys.readouterr().out.splitlines()


def findings(lines: list[str]) -> dict[str, str]:
    """Read pair of runs -> points, p-value and verdict, as printed."""
    found = {}
    for line in lines:
        if " - " in line and "[" in line:
            pair, figures = re.split(r"\s+(?=[+-]\d)", line, maxsplit=1)
            found[pair] = " ".join(figures.split())
    return found


def add_to_metrics(run: Path, **figures) -> None:
    path = run / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | figures))


def answers_of(seeds: int, rows: int, level: float, generator, of_row: float = 0.7) -> np.ndarray:
    """Draw ``[R, N]`` bool whose hard rows are hard for every seed."""
    hard = np.random.default_rng(7).random(rows)
    return of_row * hard + (1 - of_row) * generator.random((seeds, rows)) < level


def one_arm(name: str, correct: np.ndarray):
    """Make what `Judge` reads of an arm."""
    runs = [SimpleNamespace(seed=seed, values=row) for seed, row in enumerate(correct)]
    seeds = tuple(range(len(runs)))
    return SimpleNamespace(
        is_fitted=False, name=name, runs=runs, first=runs[0], seeds=seeds, run_of=lambda seed: runs[seed]
    )
