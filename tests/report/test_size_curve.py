"""The size curve: which arms are one line, and what is drawn."""

import csv
from types import SimpleNamespace

import yaml

from kd.report.size_curve import transfer_texts
from kd.run.directory import RunDirectory
from kd.storage.files import write_json
from tests.report.written import page, words


def write(runs, name: str, texts: int, steps=(), accuracy=0.75, **changes):
    """Write a run whose transfer set has this many texts, made by these steps."""
    path = runs.write(name, "distillation", accuracy, **changes)
    config = yaml.safe_load((path / "config.yaml").read_text())
    config |= {"transfer": {step: {"_target_": f"kd.transfer.{step}"} for step in steps}, "transfer_seed": 0}
    config["transfer_rows"] = texts or None
    (path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    environment = RunDirectory(path).environment()
    environment["data"] |= {"train": f"{texts:064x}", "counts": {"splits": {"train": {"unlabelled": texts}}}}
    write_json(path / "environment.json", environment)
    return path


def test_a_line_has_the_sizes_of_one_kind_of_set(runs):
    """Two kinds of sets are two lines, and both begin at the runs without one."""
    for seed in (0, 1):
        write(runs, f"none-{seed}", 0, seed=seed, accuracy=0.73)
        for kind in ("rules", "documents"):
            for texts in (100, 400):
                write(runs, f"{kind}-{texts}-{seed}", texts, (kind,), seed=seed, accuracy=0.74 + texts / 20_000)
    write(runs, "other", 100, ("rules",), temperature=4)
    runs.write("alone", "supervised", 0.70)
    text = words(page(runs.folder))
    assert "Size of the transfer set" in text
    with (runs.folder / "report" / "figures" / "size-curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    curves = {}
    for row in rows:
        if not row["model"].startswith("teacher"):
            curves.setdefault(row["model"], []).append((int(row["transfer_texts"]), int(row["seeds"])))
    assert sorted(curves.values()) == [[(0, 2), (100, 2), (400, 2)]] * 2
    assert {next(kind for kind in ("rules", "documents") if kind in name) for name in curves} == {"rules", "documents"}
    assert any(row["model"].startswith("teacher") for row in rows)


def test_one_size_draws_nothing(runs):
    write(runs, "some", 100, ("rules",))
    runs.write("alone", "supervised", 0.70)
    assert "Size of the transfer set" not in words(page(runs.folder))


def run_with(**data) -> SimpleNamespace:
    return SimpleNamespace(environment={"data": data})


def test_rows_in_memory_and_in_shards_count():
    in_memory = {"splits": {"train": {"unlabelled": 3}}}
    assert transfer_texts(run_with(counts=in_memory)) == 3
    assert transfer_texts(run_with(counts=in_memory, transfer={"rows": 5})) == 8
    assert transfer_texts(run_with(train="an early kd kept no counts")) == 0
