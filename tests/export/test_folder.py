"""What export.json refuses."""

import json
import shutil

import pytest

from kd.errors import KDError, NewerError
from kd.export import folder


@pytest.fixture
def copied(exported, tmp_path):
    return shutil.copytree(exported / "onnx", tmp_path / "copy")


def changed(place, **more):
    about = json.loads((place / "export.json").read_text())
    (place / "export.json").write_text(json.dumps(about | more))


def test_it_reads_what_it_wrote(copied):
    assert folder.is_export(copied) and folder.read(copied)["kind"] == "onnx"
    assert not folder.is_export(copied.parent)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_changed_or_missing_file_is_noticed(copied, name):
    content = (copied / name).read_bytes()
    (copied / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(KDError, match=rf"is damaged: {name} does not match its checksum; copy it again"):
        folder.read(copied)
    (copied / name).unlink()
    with pytest.raises(KDError, match=rf"{name} is missing"):
        folder.read(copied)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "x"}', "[" * 100_000])
def test_a_damaged_description_is_noticed(copied, content):
    (copied / "export.json").write_text(content)
    with pytest.raises(KDError, match=r"the export in .* is damaged: export.json"):
        folder.read(copied)


def test_other_labels_are_noticed_and_a_newer_format_is_named(copied):
    changed(copied, labels=["good", "bad"])
    with pytest.raises(KDError, match=r"export.json does not match its own checksum"):
        folder.read(copied)
    changed(copied, format=99)
    with pytest.raises(NewerError, match=r"is of a newer kd: expected format 1, found 99; update kd"):
        folder.read(copied)
