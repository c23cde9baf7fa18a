"""Which data are measured, and which of them is the reference."""

import shutil
from pathlib import Path

import pytest

from kd.errors import KDError
from kd.evaluation.evaluation import Wanted, data_of, evaluation
from kd.evaluation.subject import Subject
from kd.run.directory import RunDirectory


def write(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("text,label\na warm film,positive\na dull plot,negative\n")
    return path


def test_the_reference_is_a_named_split_or_the_test_rows(pair, tmp_path):
    subject, file = Subject(pair / "dan"), str(write(tmp_path / "one.csv"))
    other = str(write(tmp_path / "more" / "one.csv"))
    names = lambda *on: [one.name for one in data_of(subject, Wanted(on, "text", "label"))]  # noqa: E731
    assert names() == ["test"] and names(file, "test") == ["test", "one.csv"]
    assert names("validation", file) == ["validation", "one.csv"]
    assert names(file, other) == ["test", file, other], "two files of one name"


def test_without_the_rows_of_the_run_the_file_is_the_reference(pair, reviews_file, tmp_path):
    config = pair / "dan" / "config.yaml"
    config.write_text(config.read_text().replace(str(reviews_file), "gone.csv"))
    RunDirectory(pair / "dan").set_status("done")  # with the checksum of the new configuration
    subject, file = Subject(pair / "dan"), str(write(tmp_path / "one.csv"))
    found = evaluation(subject, Wanted([file], "text", "label"))
    assert [one["name"] for one in found["data"]] == ["one.csv"] and "is the reference" in found["notes"][0]
    assert found["temperature"] and found["data"][0]["metrics"]["accuracy"]["value"] is not None
    with pytest.raises(KDError, match=r"gone\.csv"):
        data_of(subject, Wanted(["test"], "text", "label"))


def test_an_export_belongs_to_the_run_in_which_it_lies(pair):
    place = shutil.copytree(pair / "dan" / "model", pair / "dan" / "exports" / "copy")
    subject = Subject(place)
    assert subject.run.path == pair / "dan" and not subject.is_run
