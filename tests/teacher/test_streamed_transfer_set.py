"""Transfer sets larger than memory (`kd.teacher.transfer_set`): the same rows as in memory, each once."""

import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from kd.data import slices
from kd.data.batching import EncodedSplit, tokenize
from kd.data.sources import from_files
from kd.data.streaming import POOL_SHARDS, StreamedSplit
from kd.errors import KDError
from kd.teacher import cache as teacher_cache
from kd.teacher.outputs import TeacherOutputs
from kd.teacher.ready import ReadyTeacher
from kd.teacher.transfer_set import ShardTexts, Transfer
from tests.data.writing import NAMES, flip, transfer_files, write_rows

SHARD_ROWS = 100


@pytest.fixture(scope="module")
def files(reviews_file, tmp_path_factory) -> list[Path]:
    return transfer_files(tmp_path_factory.mktemp("transfer"), reviews_file)


def configuration(files, reviews_file, outputs, shard_rows=SHARD_ROWS, **data):
    settings = {
        "unlabelled": [str(path) for path in files],
        "text": "text",
        "encoding": "utf-8",
        "deduplicate": True,
        "shard_rows": shard_rows,
        "max_length": 24,
    }
    return OmegaConf.create({"data": settings | data, "outputs": str(outputs)})


@pytest.fixture(scope="module")
def splits(reviews_file):
    return from_files(str(reviews_file), label_names=NAMES, validation_share=0.2, test_share=0.2)


@pytest.fixture
def ready(teacher_folder) -> ReadyTeacher:
    return ReadyTeacher("tiny", teacher_folder, 24, 32, {})


def labelled(transfer: Transfer) -> dict[str, tuple[int, int]]:
    """When which shard's logits were written."""
    found = {}
    for place in teacher_cache.entries(transfer.store.place / "teacher_cache"):
        meta = json.loads((place / "meta.json").read_text())
        if meta["key"]["column"] == "logits":
            state = (place / "values.npy").stat()
            found[place.name] = (state.st_ino, state.st_mtime_ns)
    return found


def all_rows(split: StreamedSplit, seed: int = 0, **ranks) -> dict[int, tuple[list[int], list[float], int]]:
    """Tokens, logits and label of every row of an epoch, by its index."""
    found = {}
    for place in split.sampler(32, seed=seed, **ranks):
        batch = split[place]
        lengths = batch["attention_mask"].sum(1).tolist()
        for row, index in enumerate(batch["index"].tolist()):
            assert index not in found
            tokens = batch["input_ids"][row, : lengths[row]].tolist()
            found[index] = tokens, batch["teacher_logits"][row].tolist(), int(batch["labels"][row])
    return found


def resident_of(splits, ready, outputs) -> EncodedSplit:
    tokens = ready.tokens(splits.train["text"])
    encoded = EncodedSplit(tokens, np.array(splits.train["label"]), 0)
    return TeacherOutputs(ready, outputs, cache=True).attached_to(encoded, splits.train, "train")


def streamed(transfer: Transfer, splits, ready, outputs) -> StreamedSplit:
    answers = TeacherOutputs(ready, outputs, cache=True)
    transfer.label(ready.tokenizer, answers)
    return transfer.split(resident_of(splits, ready, outputs), ready.tokenizer, answers)


@pytest.mark.parametrize("deduplicate", [True, False])
def test_the_rows_and_counts_are_those_of_reading_in_memory(
    files, reviews_file, splits, tmp_path, deduplicate, monkeypatch
):
    monkeypatch.setattr(slices, "KEYS_AT_ONCE", 500)
    transfer = Transfer.of(configuration(files, reviews_file, tmp_path, deduplicate=deduplicate), splits)
    shares = {"validation_share": 0.2, "test_share": 0.2, "deduplicate": deduplicate}
    whole = from_files(str(reviews_file), label_names=NAMES, unlabelled=[str(path) for path in files], **shares)
    found = list(chain.from_iterable(map(transfer.store.texts, range(len(transfer.store)))))
    assert [*splits.train["text"], *found] == whole.train["text"][:]
    assert len(transfer.store) > 2 * POOL_SHARDS
    facts = transfer.store.facts()
    assert facts["rows"] == whole.counts["unlabelled"] == len(found)
    fates = {fate: count for fate, count in whole.counts.items() if fate in facts["fates"]}
    assert facts["fates"] == fates and facts["read"] == facts["rows"] + sum(fates.values())
    for fate in ("removed_from_train", "empty"):
        assert facts["lines"][fate] == whole.counts["lines"][fate]
    assert sum(fates.values()) > 350 if deduplicate else "duplicates" not in fates


def test_tokens_logits_and_labels_are_those_of_reading_in_memory(
    files, reviews_file, splits, ready, tmp_path, monkeypatch
):
    transfer = Transfer.of(configuration(files, reviews_file, tmp_path), splits)
    split = streamed(transfer, splits, ready, tmp_path)
    whole = from_files(
        str(reviews_file),
        label_names=NAMES,
        unlabelled=[str(path) for path in files],
        validation_share=0.2,
        test_share=0.2,
    )
    tokens, logits = ready.tokens(whole.train["text"]), ready.live_logits(whole.train["text"])
    found = all_rows(split)
    assert len(found) == len(split) == len(whole.train)
    for index, (ids, answer, label) in found.items():
        assert ids == tokens[index].tolist() and label == whole.train[index]["label"]
        assert answer == pytest.approx(logits[index].tolist(), abs=1e-5)


def test_killed_labelling_goes_on_and_several_processes_divide_it(files, reviews_file, splits, ready, tmp_path):
    transfer = Transfer.of(configuration(files, reviews_file, tmp_path), splits)
    answers = TeacherOutputs(ready, tmp_path, cache=True)
    shards, context = len(transfer.store), multiprocessing.get_context("fork")

    def label(log: Path) -> None:
        before = set(labelled(transfer))
        cached = ReadyTeacher.cached

        def counted(self, wanted):
            with log.open("a") as stream:
                stream.write(f"{wanted.texts.number}\n")
            time.sleep(0.05)
            return cached(self, wanted)

        ReadyTeacher.cached = counted  # in this process alone
        transfer.label(ready.tokenizer, answers)
        assert before <= set(labelled(transfer))

    first = context.Process(target=label, args=(tmp_path / "first",))
    first.start()
    # Killed inside the fifth shard, whose lock it holds: a kill between two locks could leave a lock without a name,
    # and the others would wait for the whole lease.
    deadline, log = time.monotonic() + 30, tmp_path / "first"
    while not (log.exists() and len(log.read_text().splitlines()) > 4) and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    kept = labelled(transfer)
    assert 4 <= len(kept) < shards
    others = [context.Process(target=label, args=(tmp_path / name,)) for name in ("second", "third")]
    for other in others:
        other.start()
    for other in others:
        other.join(60)
    assert [other.exitcode for other in others] == [0, 0]
    found = labelled(transfer)
    assert len(found) == shards and {name: found[name] for name in kept} == kept
    shares = [(tmp_path / name).read_text().split() for name in ("second", "third")]
    assert min(map(len, shares)) > 0, "both took part"
    assert len(shares[0]) + len(shares[1]) == len(set(shares[0]) | set(shares[1])) == shards - len(kept)
    assert not answers.seconds
    transfer.label(ready.tokenizer, answers)
    assert answers.seconds["train"] > 0, "the seconds of all shards are told"


def test_what_is_damaged_is_built_again_and_nothing_else(files, reviews_file, splits, ready, tmp_path, caplog):
    transfer = Transfer.of(configuration(files, reviews_file, tmp_path), splits)
    split = streamed(transfer, splits, ready, tmp_path)
    expected = all_rows(split)
    places = teacher_cache.entries(transfer.store.place / "teacher_cache")
    tokens = next(place for place in places if (place / "offsets.npy").exists())
    logits = next(place for place in places if not (place / "offsets.npy").exists())
    before = labelled(transfer)
    flip(tokens / "values.npy")
    flip(logits / "values.npy")
    flip(transfer.store.place / transfer.store.shards[3].name)
    (transfer.store.place / transfer.store.shards[4].name).unlink()
    cut_off = next(place for place in places if place.name in before and place != logits) / "meta.json"
    cut_off.write_bytes(cut_off.read_bytes()[:50])
    assert all_rows(split) == expected
    assert caplog.text.count("it is built again") == 3
    after = labelled(transfer)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {logits.name, cut_off.parent.name}
    assert [len(transfer.store.texts(number)) for number in (3, 4)] == [s.rows for s in transfer.store.shards[3:5]]
    assert "the files are read again" in caplog.text
    manifest = transfer.store.place / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:50])
    again = Transfer.of(configuration(files, reviews_file, tmp_path), splits)
    assert again.store.shards == transfer.store.shards and again.store.counts == transfer.store.counts


def test_files_that_changed_are_another_transfer_set(files, reviews_file, splits, tmp_path):
    transfer = Transfer.of(configuration(files, reviews_file, tmp_path), splits)
    changed = write_rows(tmp_path / "rows.jsonl", ["a new scene", "a new plot"])
    other = Transfer.of(configuration([changed], reviews_file, tmp_path), splits)
    assert other.store.place != transfer.store.place and other.store.texts(0) == ["a new scene", "a new plot"]
    source = replace(transfer.store.source, files=[changed])
    transfer.store.source = source
    (transfer.store.place / transfer.store.shards[0].name).unlink()
    with pytest.raises(KDError, match="was built from, found others"):
        transfer.store.texts(0)
    taken = write_rows(tmp_path / "taken.jsonl", [splits.test["text"][0]])
    with pytest.raises(KDError, match=r"found none among 1 rows .* \(1 removed_from_train\); add other files"):
        Transfer.of(configuration([taken], reviews_file, tmp_path), splits)


def test_tokens_are_stored_in_the_fewest_bytes(files, reviews_file, splits, ready, tmp_path):
    transfer = Transfer.of(configuration(files, reviews_file, tmp_path), splits)
    texts = ShardTexts(transfer.store, 0)
    found = texts.tokens(ready.tokenizer, 24)
    assert found.values.dtype == np.uint16 and isinstance(found.values, np.memmap)
    expected = tokenize(ready.tokenizer, transfer.store.texts(0), 24)
    np.testing.assert_array_equal(found.values, expected.values)
    np.testing.assert_array_equal(found.offsets, expected.offsets)
