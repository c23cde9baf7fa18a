"""`kd cache` on two small caches."""

import os
from pathlib import Path

import numpy as np
import pytest

from kd.commands.cache import choose, main
from kd.commands.cache_build import require_processes
from kd.errors import KDError
from kd.teacher import by_text, cache
from kd.teacher.answers_file import read_answers
from tests.data.writing import flip


@pytest.fixture
def places(tmp_path, monkeypatch) -> list[Path]:
    """The caches of two texts in ``outputs`` of the current folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "outputs" / "teacher_cache"
    for text in ("a", "b"):
        key = cache.CacheKey("teacher", "tokenizer", 8, "logits", cache.texts_hash([text]))
        rows = [(np.array([0]), {"logits": np.zeros((1, 2), np.float32)})]
        cache.obtain(folder, [key], lambda: np.ones(1, np.int64), lambda _, rows=rows: rows)
    return cache.entries(folder)


def damage(place: Path) -> None:
    content = bytearray((place / "values.npy").read_bytes())
    content[-1] ^= 1
    (place / "values.npy").write_bytes(content)


def test_caches_are_listed_and_damaged_ones_are_named(places, capsys):
    damage(places[1])
    assert main(["ls"]) == 0
    printed = capsys.readouterr().out
    assert all(place.name in printed for place in places) and "logits" in printed
    assert f"{places[1].name} damaged: values.npy does not match its checksum" in printed
    assert max(map(len, printed.splitlines()[:3])) <= 80


def test_an_empty_folder_has_none(tmp_path, capsys):
    assert main(["ls", "--outputs", str(tmp_path)]) == 0
    assert "no teacher cache here yet" in capsys.readouterr().out


def test_verify_fails_if_one_is_damaged(places, capsys):
    assert main(["verify"]) == 0
    damage(places[0])
    assert main(["verify"]) == 1 and main(["verify", places[1].name]) == 0
    printed = capsys.readouterr().out
    assert f"{places[0].name}  values.npy does not match" in printed and f"{places[1].name}  whole" in printed


def test_what_is_named_is_removed(places):
    (places[0].parent / "x.pieces").mkdir()
    assert main(["rm", places[0].name]) == 0
    assert not places[0].exists() and places[1].exists()
    assert main(["rm", "--all"]) == 0
    assert not list(places[0].parent.glob("*/")), "unfinished pieces too"


@pytest.mark.parametrize("arguments", [["rm"], ["rm", "x", "--all"]])
def test_rm_wants_keys_or_all(arguments):
    with pytest.raises(KDError, match="expected the keys to remove, or --all"):
        main(arguments)


def test_a_key_may_be_short_but_must_fit_one(places):
    folder = places[0].parent
    assert choose(folder, []) == places
    assert choose(folder, [places[1].name[:12]]) == [places[1]]
    with pytest.raises(KDError, match="found 2 for ''"):
        choose(folder, [""])
    with pytest.raises(KDError, match="found 0 for 'zzz'"):
        choose(folder, ["zzz"])


def test_a_machine_is_not_filled_with_processes():
    require_processes(os.cpu_count())
    with pytest.raises(KDError, match=r"trainer\.devices: expected at most .* processes on this machine, got 900"):
        require_processes(900)


def test_logits_by_text_are_listed_verified_and_removed_too(places, capsys):
    folder = places[0].parent
    key = cache.CacheKey("teacher", "tokenizer", 8, "logits", "")
    store = by_text.TextStore(folder, key, 2, "tiny")
    store.add(by_text.hashes(["a", "b", "c"]), np.ones((3, 2), np.float32), np.full(3, 0.5))
    assert main(["ls"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "every text" in line]
    assert row.split()[0] == store.place.stem and row.split()[-3:] == ["3", "0.00", "1.5"]
    assert main(["verify", store.place.stem]) == 0
    (shard,) = by_text.shards(store.place)
    flip(shard)
    assert main(["verify"]) == 1 and f"{shard.name} does not match its checksum" in capsys.readouterr().out
    assert main(["rm", store.place.stem]) == 0
    assert not store.place.exists() and places[0].exists()


def test_answers_are_shared_without_their_texts(places, tmp_path, capsys):
    folder = tmp_path / "outputs" / "teacher_cache"
    key = cache.CacheKey("teacher", "tokenizer", 8, "logits", by_text.EVERY)
    texts, logits = ["a warm film", "A dull plot"], np.array([[0.5, -0.25], [2.0, 1.0]], np.float32)
    by_text.TextStore(folder, key, 2, "big").add(by_text.hashes(texts), logits, np.zeros(2))
    assert main(["answers", "--out", "shared.parquet"]) == 0
    assert "2 answers of big are in shared.parquet" in capsys.readouterr().out
    content = Path("shared.parquet").read_bytes()
    assert b"warm" not in content
    table = read_answers(Path("shared.parquet"), ["bad", "good"], "text", "label", "utf-8", 1.0, 1e-4)
    np.testing.assert_array_equal(table.of([*texts, "a dull plot"])[:2], logits)
    assert np.isnan(table.of(["a dull plot"])).all()  # another text: the hash is of the text as it is
    with pytest.raises(KDError, match=r"--out: expected FILE.parquet, got None"):
        main(["answers"])
    with pytest.raises(KDError, match=r"expected the key of one cache of every text, found 0"):
        main(["answers", places[0].name, "--out", "x.parquet"])
