"""The teacher of a run is found by its checksum."""

import pytest

from kd.errors import KDError
from kd.run.directory import RunDirectory
from kd.run.own_teacher import own_teacher
from kd.storage import records
from kd.storage.files import write_json, write_text


def run_with(place, teacher, outputs):
    run = RunDirectory(place)
    place.mkdir(parents=True)
    write_json(place / "environment.json", {"teacher": teacher} if teacher else {})
    write_text(run.config_file, f"data: {{text: text}}\noutputs: {outputs}\n")
    return run


def test_it_is_found_below_the_outputs_or_above_the_run(tmp_path):
    for name, checksum in (("one", "a" * 64), ("two", "b" * 64)):
        facts = {"name": name, "checksum": checksum, "validation_accuracy": 0.9}
        (tmp_path / "outputs" / "teachers" / name).mkdir(parents=True)
        records.write(tmp_path / "outputs" / "teachers" / name / "teacher.json", facts)
    taught = {"name": "two", "checksum": "b" * 64 + "+tokenizer"}
    expected = tmp_path / "outputs" / "teachers" / "two" / "model"
    assert own_teacher(run_with(tmp_path / "run", taught, tmp_path / "outputs")) == expected
    assert own_teacher(run_with(tmp_path / "outputs" / "runs" / "moved", taught, "elsewhere")) == expected
    with pytest.raises(KDError, match=r"was trained without a teacher; give one with --teacher"):
        own_teacher(run_with(tmp_path / "alone", None, tmp_path / "outputs"))
    with pytest.raises(KDError, match=r"expected the teacher of the run .* found no such model"):
        own_teacher(run_with(tmp_path / "other", {"checksum": "c" * 64}, tmp_path / "outputs"))
