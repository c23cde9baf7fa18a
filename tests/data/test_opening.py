"""Opening text files: encodings and damaged archives."""

import encodings
import gzip
import pkgutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kd.data.files import read_rows
from kd.data.opening import NO_TEXT, OTHER_KINDS, codec_of, member, opened
from kd.errors import KDError
from tests.data.writing import packed_file, plain_content, raw, reviews, write

CODECS = sorted(module.name for module in pkgutil.iter_modules(encodings.__path__))


def read(path, encoding: str = "utf-8") -> None:
    list(read_rows(path, encoding))


@pytest.mark.parametrize("encoding", ["base64", "rot13", "hex", "zlib", "bz2", "uu", "quopri", *sorted(NO_TEXT)])
def test_codecs_of_something_else_than_texts_are_refused(tmp_path, encoding):
    with pytest.raises(KDError, match=r"unknown encoding .*: expected one of texts, such as utf-8"):
        read(raw(tmp_path / "a.csv", "text,label\nx,1\n"), encoding)


@settings(deadline=None, max_examples=150)
@given(
    encoding=st.sampled_from(CODECS) | st.text(max_size=12),
    content=st.binary(max_size=60) | st.text(max_size=30).map(str.encode),
    name=st.sampled_from(["a.csv", "a.tsv", "a.jsonl", "a.txt", "a.json"]),
)
def test_any_bytes_in_any_encoding_are_read_or_get_one_sentence(tmp_path_factory, encoding, content, name):
    path = raw(tmp_path_factory.mktemp("any") / name, content)
    try:
        read(path, encoding)
    except KDError as error:
        assert str(error).count("\n") == 0


@settings(deadline=None, max_examples=80)
@given(
    packed=st.sampled_from(["gz", "bz2", "xz", "zst", "zip"]),
    cut=st.floats(0, 1),
    flip=st.none() | st.floats(0, 0.999),
    latin=st.booleans(),
)
def test_a_damaged_archive_is_read_or_gets_one_sentence(tmp_path_factory, packed, cut, flip, latin):
    text = "text,label\n" + "".join(f"{'é' * (line % 40)} row {line},{line % 2}\n" for line in range(300))
    folder = tmp_path_factory.mktemp("archive")
    path = packed_file(folder / f"a.csv.{packed}", text.encode("latin-1" if latin else "utf-8"))
    content = bytearray(path.read_bytes())
    if flip is not None:
        content[int(flip * len(content))] ^= 0x41
    path.write_bytes(content[: int(cut * len(content))])
    try:
        read(path)
    except KDError as error:
        assert "\n" not in str(error)


def test_a_cut_gzip_file_with_a_bad_byte(tmp_path):
    content = gzip.compress(b"text,label\ncaf\xe9,1\n" + bytes(range(256)) * 4000)
    with pytest.raises(KDError, match=r"is not utf-8|not a complete gzip") as caught:
        read(raw(tmp_path / "a.csv.gz", content[: len(content) // 2]))
    assert "\n" not in str(caught.value)


def test_byte_order_marks_decide_between_utf_8_and_utf_16(tmp_path):
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        path = raw(tmp_path / "a.csv", "text,label\ntrès bon,1\n".encode(encoding))
        assert [row["text"] for _, row in read_rows(path)] == ["très bon"]
    assert codec_of(path, "latin-1") == "iso8859-1"


def test_an_encrypted_or_empty_zip_file(tmp_path):
    path = packed_file(tmp_path / "a.csv.zip", plain_content("a.csv"))
    content = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.find(mark) + place] |= 1  # the flag of an encrypted file
    with pytest.raises(KDError, match=r"is not a complete zip file .*encrypted.*unpack it"):
        read(raw(path, bytes(content)))
    with pytest.raises(KDError, match="is not a complete zip file"):
        member(raw(path, b""))


def test_a_missing_file_is_named_whatever_its_suffix(tmp_path):
    for packed in ("", ".gz", ".bz2", ".xz", ".zst", ".zip"):
        with (
            pytest.raises(KDError, match=r"there is no file .*none.csv"),
            opened(tmp_path / f"none.csv{packed}", "utf-8"),
        ):
            pass


NAMES = ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.txt", "a.parquet", "a.arrow", "a.csv.gz", "a.jsonl.zst"]


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(OTHER_KINDS), st.sampled_from(NAMES), st.binary(max_size=90), st.booleans())
def test_a_file_of_another_kind_is_named(tmp_path_factory, kind, name, rest, upper):
    mark, suffixes, what, advice = kind
    path = tmp_path_factory.mktemp("other") / name
    if {*suffixes} & {*path.suffixes}:
        return
    path.write_bytes((mark if suffixes else (b"\n " + mark.upper() if upper else mark)) + rest)
    with pytest.raises(KDError) as error:
        read(path)
    assert str(error.value) == f"expected rows in {path}, found {what}; {advice}"


def test_a_packed_file_under_another_name_is_named(tmp_path):
    packed = packed_file(tmp_path / "a.csv.gz", b"text,label\nx,1\n").rename(tmp_path / "a.csv")
    with pytest.raises(KDError, match=r"found a gzip file; add \.gz to its name"):
        read(packed)
    with pytest.raises(KDError, match=r"found a Parquet file; name it \.parquet"):
        read(write(tmp_path / "b.parquet", reviews(3)).rename(tmp_path / "b.jsonl"))
