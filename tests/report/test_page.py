"""What the page is, and where it is written."""

import re
from pathlib import Path

import pytest

from kd.cli import main
from kd.report import write_report
from kd.run.directory import RunDirectory
from kd.storage.files import write_json
from tests.report.written import (
    page,
    table,
    words,
)


def test_everything_lies_in_the_folder(runs, capsys):
    runs.grid()
    assert main(["report", str(runs.folder)]) == 0
    place = runs.folder / "report"
    index = place / "index.html"
    assert index.stat().st_size < 1e6
    assert f"the page is {index.resolve()}" in capsys.readouterr().err
    figures = {path.stem for path in (place / "figures").iterdir()}
    assert {"gain", "heat-map-1", "curves", "accuracy-latency", "fidelity", "reliability-after"} <= figures
    for figure in figures:
        assert (place / "figures" / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (place / "figures" / f"{figure}.svg").read_text()
        assert len((place / "figures" / f"{figure}.csv").read_text().splitlines()) > 1
    for name in ("results", "gain", "best", "costs", "fidelity", "calibration"):
        tex = (place / "tables" / f"{name}.tex").read_text()
        assert tex.isascii(), "LaTeX without further packages reads it"
        assert tex.count("{") == tex.count("}") and "\\toprule" in tex and "% kd report" in tex
        assert len(table(runs.folder, name)) >= 6
    markdown = (place / "report.md").read_text()
    for linked in re.findall(r"\]\((figures/[^)]+)\)", markdown):
        assert (place / linked).is_file()
    # Written again, it replaces itself, and the report is not taken for a run.
    before = words(index.read_text())
    assert main(["report", str(runs.folder)]) == 0
    minutes = re.compile(r"at \d\d:\d\d")
    assert minutes.sub("", words(index.read_text())) == minutes.sub("", before)
    assert not list(runs.folder.glob(".report*"))


def test_names_from_a_folder_are_not_markup(runs):
    path = runs.write("one", "supervised")
    environment = RunDirectory(path).environment()
    write_json(path / "environment.json", environment | {"command": ["kd", "train", "x=<script>alert(1)</script>"]})
    html = page(runs.folder)
    assert "<script>alert" not in html and "&lt;script&gt;alert" in html


def test_a_place_that_holds_something_else_is_left_alone(runs, capsys):
    runs.write("one", "supervised")
    mine = runs.folder.parent / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    assert main(["report", str(runs.folder), "--out", str(mine)]) == 2
    assert "expected an empty folder or an earlier report" in capsys.readouterr().err
    assert (mine / "thesis.txt").read_text() == "years of work"


@pytest.mark.slow
def test_killed_while_the_earlier_report_goes_it_is_written_again(runs, monkeypatch):
    """A folder that is removed in any order is no report at some moment, and may not stand in the report's place."""
    runs.write("one", "supervised")
    place = runs.folder.parent / "report"
    write_report([runs.folder], place)

    def half_removed(folder, ignore_errors=False):
        for mark in Path(folder).rglob(".kd-report"):
            mark.unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr("kd.storage.files.shutil.rmtree", half_removed)
        with pytest.raises(KeyboardInterrupt):
            write_report([runs.folder], place)
    assert write_report([runs.folder], place).is_file()
    assert sorted(path.name for path in place.parent.iterdir()) == ["report", "runs"]
