"""Files and folders that are written in one step."""

import json
import os

import pytest

from kd.errors import KDError
from kd.storage import files
from kd.storage.files import built_beside, read_json, write_bytes, write_json, write_text


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_files_are_written_and_replaced(tmp_path):
    for content in ({"a": [1, "é"]}, {"b": None}):
        write_json(tmp_path / "a.json", content)
        assert read_json(tmp_path / "a.json") == json.loads((tmp_path / "a.json").read_text()) == content
    write_text(tmp_path / "b", "é\n")
    write_bytes(tmp_path / "c", b"\xff")
    assert [(tmp_path / name).read_bytes() for name in "bc"] == ["é\n".encode(), b"\xff"]
    assert names(tmp_path) == ["a.json", "b", "c"]


def test_a_reader_never_finds_half_a_file(tmp_path, monkeypatch):
    write_text(tmp_path / "a", "old")

    def check(temporary, path):
        assert path.read_text() == "old" and temporary.read_text() == "new"
        os.rename(temporary, path)

    monkeypatch.setattr(files.os, "replace", check)
    write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "found none that can be read"), ("{", "found none that can be read"), ("[]", "found a list")],
)
def test_what_is_no_json_object_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "a.json").write_text(content)
    with pytest.raises(KDError, match=message):
        read_json(tmp_path / "a.json")


def test_a_folder_appears_when_it_is_complete(tmp_path):
    place = tmp_path / "place"
    (tmp_path / "place.building-host-7").mkdir()
    (tmp_path / "place.building-host-7" / "half").write_text("")
    for content in ("first", "second"):
        with built_beside(place) as building:
            assert building.parent == tmp_path and names(building) == []
            assert not place.exists() or (place / "file").read_text() == "first"
            (building / "file").write_text(content)
        assert (place / "file").read_text() == content
        assert names(tmp_path) == ["place"] and names(place) == ["file"]


@pytest.mark.parametrize("error", [KDError, KeyboardInterrupt])
def test_a_folder_that_failed_leaves_the_old_one(tmp_path, error):
    place = tmp_path / "place"
    with built_beside(place) as building:
        (building / "file").write_text("first")
    with pytest.raises(error), built_beside(place) as building:
        (building / "file").write_text("second")
        raise error
    assert names(tmp_path) == ["place"] and (place / "file").read_text() == "first"
