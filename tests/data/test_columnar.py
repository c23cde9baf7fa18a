"""Parquet and Arrow: class names, bytes, and strings that are not UTF-8."""

import datasets
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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


@settings(deadline=None, max_examples=80)
@given(
    name=st.sampled_from(["a.parquet", "a.arrow"]),
    kind=st.sampled_from([pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())]),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), max_size=3),
    cut=st.just(1.0) | st.floats(0, 1),
)
def test_a_damaged_file_is_read_or_gets_one_sentence(tmp_path_factory, name, kind, flips, cut):
    texts = pa.array([f"text {number} é" for number in range(50)]).cast(kind)
    path = written(tmp_path_factory.mktemp("damaged") / name, pa.table({"text": texts, "label": range(50)}))
    content = bytearray(path.read_bytes())
    for place, bits in flips:
        content[int(place * len(content))] ^= bits
    path.write_bytes(content[: int(cut * len(content))])
    try:
        list(read_rows(path, WANTED))
    except KDError as error:
        assert "\n" not in str(error)


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
