"""Checksums of JSON values and of files."""

import hashlib
import os
from pathlib import Path

import pytest

from kd.storage.checksum import digest, file_sha256


def test_the_digest_of_a_json_value_ignores_the_order_of_keys():
    assert digest({"b": [1, None], "a": {"d": 2.5, "c": "é"}}) == digest({"a": {"c": "é", "d": 2.5}, "b": [1, None]})
    assert len({digest(value) for value in ({"a": 1}, {"a": 1.0}, {"a": "1"}, {"a": True}, ["a", 1], ["1", "a"])}) == 6
    # It is part of identities and of names of caches, so it must stay from version to version.
    assert digest({"b": 1, "a": 2}) == hashlib.sha256(b'{"a": 2, "b": 1}').hexdigest()


def test_objects_outside_json_need_a_default():
    with pytest.raises(TypeError):
        digest({"path": Path("a")})
    assert digest({"path": Path("a")}, default=str) == digest({"path": "a"})


def test_a_file_is_read_again_only_if_it_has_changed(tmp_path, monkeypatch):
    file, reads = tmp_path / "file", []
    real = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *arguments: reads.append(1) or real(*arguments))
    file.write_bytes(b"one")
    assert file_sha256(file) == file_sha256(file) == hashlib.sha256(b"one").hexdigest()
    assert len(reads) == 1
    file.write_bytes(b"two")
    os.utime(file, ns=(0, 0))
    assert file_sha256(file) == hashlib.sha256(b"two").hexdigest()
    assert len(reads) == 2
    with pytest.raises(FileNotFoundError):
        file_sha256(tmp_path / "none")
