"""The size curve: which arms are one line, and what is drawn."""

import csv

import yaml
from matplotlib.figure import Figure

from kd.report.folds import pool_folds
from kd.report.runs import Run, find_runs
from kd.report.size_curve import size_curve
from kd.report.study import studies
from kd.run.directory import RunDirectory
from kd.storage.files import write_json
from tests.report.written import page, table, words

COUNTED = {"labels": {"negative": 50, "positive": 50}}


def write(runs, name: str, texts: int, steps=(), accuracy=0.75, method="distillation", **changes):
    """Write a run whose transfer set has this many texts, made by these steps."""
    path = runs.write(name, method, accuracy, **changes)
    config = yaml.safe_load((path / "config.yaml").read_text())
    config |= {"transfer": {step: {"_target_": f"kd.transfer.{step}"} for step in steps}, "transfer_seed": 0}
    config["transfer_rows"] = texts or None
    (path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    environment = RunDirectory(path).environment()
    environment["data"] |= {"train": f"{texts:064x}", "counts": {"splits": {"train": COUNTED | {"unlabelled": texts}}}}
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


def test_more_lines_than_colours_are_all_drawn(runs):
    for kind in range(9):
        for texts in (100, 400):
            write(runs, f"{kind}-{texts}", texts, (f"step{kind}",), accuracy=0.74 + texts / 20_000)
    (study,) = studies(pool_folds(find_runs([runs.folder])).runs)
    figure, axes = size_curve(study), Figure().subplots()
    figure.draw(axes)
    looks = [(line.get_color(), line.get_linestyle()) for line in axes.lines if line.get_label().startswith("dist")]
    assert len(looks) == len(set(looks)) == 9


def test_one_size_draws_nothing(runs):
    write(runs, "some", 100, ("rules",))
    runs.write("alone", "supervised", 0.70)
    assert "Size of the transfer set" not in words(page(runs.folder))


def test_without_a_supervised_run_on_the_set_the_labelled_rows_alone_are_the_baseline(runs):
    write(runs, "taught", 100, ("rules",), accuracy=0.80)
    alone = write(runs, "alone", 0, accuracy=0.70, method="supervised")
    assert "distillation rules" in words(page(runs.folder)) and table(runs.folder, "gain")
    environment = RunDirectory(alone).environment()
    environment["data"]["validation"] = "others"
    write_json(alone / "environment.json", environment)
    page(runs.folder)
    assert not table(runs.folder, "gain"), "other labelled rows are no baseline"


def run_with(**data) -> Run:
    return Run(None, "distillation", {}, {"data": data}, {}, None, None, True)


def test_rows_in_memory_and_in_shards_count():
    in_memory = {"splits": {"train": {"unlabelled": 3}}}
    assert run_with(counts=in_memory).transfer_texts == 3
    assert run_with(counts=in_memory, transfer={"rows": 5}).transfer_texts == 8
    assert run_with(train="an early kd kept no counts").transfer_texts == 0


def test_without_a_transfer_set_the_baseline_has_the_same_rows(runs):
    """Other rows of the same size and balance are no baseline."""
    for name, method, rows in (("taught", "distillation", "1" * 64), ("alone", "supervised", "2" * 64)):
        path = write(runs, name, 0, method=method)
        environment = RunDirectory(path).environment()
        environment["data"]["train"] = rows
        write_json(path / "environment.json", environment)
    page(runs.folder)
    assert not table(runs.folder, "gain")
