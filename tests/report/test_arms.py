"""Which runs are one row, how rows are named, and what they are compared with."""

from types import SimpleNamespace

import pytest

from kd.report.arms import deviation, labels, usual_seeds
from kd.report.settings import Named
from tests.report.written import findings, printed, write_run


def test_what_differs_names_the_row_and_breaks_the_match(tmp_path, capsys):
    write_run(tmp_path / "a", "distillation", temperature=1.0)
    write_run(tmp_path / "b", "distillation", temperature=4.0)
    write_run(tmp_path / "c", "supervised", seed=1)
    write_run(tmp_path / "d", "supervised", label_smoothing=0.1)
    lines = printed(capsys, tmp_path)
    text = " ".join(" ".join(lines).split())
    assert "temperature=1 " in text and "temperature=4 " in text and "label_smoothing=0.1" in text and "seed=1" in text
    assert findings(lines) == {}, "neither baseline shares seed and label smoothing with the distilled runs"


def test_a_baseline_reads_no_temperature(tmp_path, capsys):
    """One supervised run is the baseline of every temperature, and its copies make one row."""
    write_run(tmp_path / "a", "distillation", temperature=1.0)
    write_run(tmp_path / "b", "distillation", temperature=4.0)
    write_run(tmp_path / "c", "supervised", temperature=1.0)
    write_run(tmp_path / "d", "supervised", temperature=4.0)
    lines = printed(capsys, tmp_path)
    assert sum(line.startswith("supervised") for line in lines) == 1
    assert len(findings(lines)) == 2


def test_compositions_fitted_towards_other_embeddings_are_two_rows(tmp_path, capsys):
    for mapper, rows in (("mapper.Linear", 1), ("fitted_mapper.Procrustes", 2)):
        for start in ("pca", "random"):
            write_run(tmp_path / mapper / start, "composition", start, mapper={"_target_": f"kd.features.{mapper}"})
        lines = printed(capsys, tmp_path / mapper)
        assert sum(line.startswith("composition") and " - " not in line and "[" in line for line in lines) == rows


def test_runs_that_differ_in_the_transfer_set_are_rows_of_their_own(tmp_path, capsys):
    """In memory it is part of the training rows, streamed it has a checksum of its own; the place does not count."""
    few, more, streamed = {"train": "1"}, {"train": "2"}, {"train": "1", "transfer": {"sha256": "3"}}
    unlabelled = {"unlabelled": ["/somewhere/more.csv"]}
    write_run(tmp_path / "a", "distillation", rows=few)
    write_run(tmp_path / "b", "distillation", rows=few, data={"path": "/elsewhere/a"}, seed=1)
    write_run(tmp_path / "c", "distillation", rows=more, data=unlabelled)
    write_run(tmp_path / "d", "distillation", rows=streamed, data=unlabelled)
    write_run(tmp_path / "e", "supervised", rows=more, data=unlabelled)
    lines = printed(capsys, tmp_path)
    text = " ".join(" ".join(lines).split())
    rows = [line for line in lines if line.startswith("distillation") and "[" in line and " - " not in line]
    assert len(rows) == 3 and sum("±" in row for row in rows) == 1
    assert "rows=a@" in text and "rows=a+more.csv@" in text
    assert len(findings(lines)) == 1, "a baseline has the same rows"


def run_with(method="distillation", seed=0, **settings) -> SimpleNamespace:
    """Make what `labels` reads of a run."""
    return SimpleNamespace(
        method=method, seed=seed, settings={key.replace("__", "."): v for key, v in settings.items()}
    )


@pytest.mark.parametrize(
    ("apart", "expected"),
    [
        (
            {"choices__student": "dan", "student__size": (8, 9)},
            ["distillation dan student.size=8", "... student.size=9"],
        ),
        ({"optim__optimizer": (Named("my.Adam", "Adam"), Named("torch.Adam", "Adam"))}, ["my.Adam", "torch.Adam"]),
        ({"student__size": ("1", 1)}, ["student.size='1'", "student.size=1"]),
    ],
)
def test_no_two_rows_have_one_name(apart, expected):
    """Figures are looked up by name: a second row of the same name would get those of the first."""
    of = [{key: v[place] if isinstance(v, tuple) else v for key, v in apart.items()} for place in (0, 1)]
    third = run_with(choices__student="bilstm")
    names = labels([(run_with(**of[0]),), (run_with(**of[1]),), (third,)])
    assert len(set(names)) == 3
    assert all(name.endswith(end.removeprefix("...")) for name, end in zip(names, expected, strict=False))


def test_a_name_has_what_differs():
    short = [(run_with(seed=seed, loss__hint__weight=1, temperature=2),) for seed in (0, 0, 1)]
    short[1][0].settings["loss.hint.weight"] = 3
    assert labels(short[:2]) == ["distillation hint.weight=1", "distillation hint.weight=3"]
    other = run_with("hints", loss__hint__weight=1, temperature=2)
    assert labels([short[0], (other,)]) == ["distillation", "hints"]
    assert labels([short[1], short[0], short[2]])[2].endswith("seed=1")


def test_usual_seeds_and_deviation():
    assert usual_seeds([(0, 1), (0,), (0, 1)]) == (0, 1) and usual_seeds([(0,), (0, 1)]) == (0, 1)
    assert deviation([1.0, 3.0]) == pytest.approx(2**0.5) and deviation([1.0]) is None
