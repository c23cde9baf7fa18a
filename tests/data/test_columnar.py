"""Parquet and Arrow: class names, bytes, and strings that are not UTF-8."""

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from kd.data.columnar import binary_columns, class_names
from kd.data.dialect import Reading
from kd.data.files import read_rows
from kd.errors import KDError

WANTED = Reading(wanted=("text", "label"))


def written(path, table: pa.Table):
    if path.suffix == ".parquet":
        parquet.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    return path


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.feather"])
def test_texts_as_bytes_are_decoded(tmp_path, name):
    table = pa.table({"text": pa.array([b"caf\xe9", None]), "label": [b"a", b"b"], "image": [b"\xff", b"\xff"]})
    path = written(tmp_path / name, table)
    assert binary_columns(table.schema, ("text", "label")) == ["text", "label"]
    rows = list(read_rows(path, Reading("latin-1", wanted=("text", "label"))))
    assert rows[0] == (1, {"text": "café", "label": "a", "image": b"\xff"}) and rows[1][1]["text"] is None
    with pytest.raises(KDError, match=r"row 1: the bytes of the column 'text' are not utf-8 text"):
        list(read_rows(path, WANTED))


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_strings_that_are_not_utf_8_get_one_sentence(tmp_path, name):
    bad = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff\xfe"]).buffers())
    path = written(tmp_path / name, pa.table({"text": bad}))
    with pytest.raises(KDError, match="a string in it is not UTF-8") as caught:
        list(read_rows(path, WANTED))
    assert "\n" not in str(caught.value)


def test_the_class_names_of_hugging_face_are_found(tmp_path):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    data = datasets.Dataset.from_dict({"text": ["x"], "label": [1]}, features=features)
    data.to_parquet(tmp_path / "a.parquet")
    assert read_rows(tmp_path / "a.parquet").names == {"label": ["bad", "good"]}
    assert class_names(pa.schema([("a", pa.string())])) == {}
    for broken in (b"{", b"[]", b'{"info": {"features": {"label": {"_type": "ClassLabel", "names": 3}}}}', b"\xff"):
        assert class_names(pa.schema([("a", pa.string())], metadata={b"huggingface": broken})) == {}
