"""Transfer sets larger than memory: the rows of the way in memory, each once, whatever ends a process."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from omegaconf import OmegaConf
from pyarrow import parquet

from kd.contract import IGNORED_LABEL
from kd.data import slices
from kd.data.batching import EncodedSplit, Ragged, tokenize
from kd.data.module import TextDataModule
from kd.data.slices import Source, read_slices
from kd.data.sources import from_files
from kd.data.streaming import POOL_SHARDS, StreamedSplit
from kd.errors import KDError
from kd.features.feature import Feature
from kd.run.directory import RunDirectory
from kd.run.identity import identity
from kd.teacher import cache as teacher_cache
from kd.teacher.outputs import TeacherOutputs as Answers
from kd.teacher.ready import ReadyTeacher
from kd.teacher.transfer_set import ShardTexts, Transfer
from tests.conftest import bare_trainer, make_reviews, run_kd
from tests.end_to_end.test_strategies import supervised

NAMES = ["negative", "positive"]
SHARD_ROWS = 100


def write_rows(path: Path, rows: list) -> Path:
    """A file of one column, in the format that its suffix says."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
        return path
    table = pa.table({"number": range(len(rows)), "text": pa.array(rows, pa.string())})
    if path.suffix == ".parquet":
        parquet.write_table(table, path, row_group_size=300)
        return path
    opened = pa.ipc.new_file if path.name.startswith("file") else pa.ipc.new_stream
    with opened(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=250)
    return path


@pytest.fixture(scope="module")
def files(reviews_file, tmp_path_factory) -> list[Path]:
    """Four files of one transfer set; texts that are empty, known, held out or repeated are strewn in."""
    folder = tmp_path_factory.mktemp("transfer")
    known = [line.rpartition(",")[0] for line in reviews_file.read_text().splitlines()[1:]]
    rows = [text for text, _ in make_reviews(2400, seed=7)]
    generator = random.Random(3)
    strewn = [*known, *(text.upper() + " " for text in known[:40]), *generator.sample(rows, 200), "", "  ", None]
    rows += strewn
    generator.shuffle(rows)
    parts = [rows[start::4] for start in range(4)]
    names = ("file.arrow", "stream.arrow", "rows.parquet", "rows.jsonl")
    return [write_rows(folder / name, part) for name, part in zip(names, parts, strict=True)]


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
    return Answers(ready, outputs, cache=True).attached_to(encoded, splits.train, "train")


def streamed(transfer: Transfer, splits, ready, outputs) -> StreamedSplit:
    answers = Answers(ready, outputs, cache=True)
    transfer.label(ready.tokenizer, answers)
    return transfer.split(resident_of(splits, ready, outputs), ready.tokenizer, answers)


@pytest.mark.parametrize("deduplicate", [True, False])
def test_the_rows_and_counts_are_those_of_the_way_in_memory(
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


def test_tokens_logits_and_labels_are_those_of_the_way_in_memory(
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


def small_split(resident: int, sizes: list[int], loads: list[int] | None = None) -> StreamedSplit:
    starts = resident + np.cumsum(sizes) - sizes

    def part(first: int, rows: int) -> EncodedSplit:
        lengths = np.random.default_rng(first).integers(1, 9, rows)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        tokens = Ragged(np.repeat(first + np.arange(rows), np.diff(offsets)), offsets)
        return EncodedSplit(tokens, first + np.arange(rows), 0)

    def load(shard: int) -> EncodedSplit:
        if loads is not None:
            loads.append(shard)
        return part(starts[shard], sizes[shard])

    return StreamedSplit(part(0, resident), np.array(sizes), load)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 7, 64])
@pytest.mark.parametrize(("resident", "sizes"), [(5, [3] * 40), (1, [1]), (30, [17, 1, 2, 40, 8] * 5), (8, [64])])
def test_every_row_comes_once_an_epoch_and_all_ranks_get_as_many_batches(resident, sizes, batch_size, world_size):
    split = small_split(resident, sizes)
    if len(split) < world_size:
        pytest.skip("fewer rows than ranks")
    for epoch in (0, 1):
        ranks = []
        for rank in range(world_size):
            sampler = split.sampler(batch_size, seed=1, rank=rank, world_size=world_size)
            sampler.set_epoch(epoch)
            batches = [split[place] for place in sampler]
            assert len(batches) == len(sampler)
            assert all(len(batch["index"]) for batch in batches)
            for batch in batches:
                assert batch["index"].tolist() == batch["labels"].tolist() == batch["input_ids"][:, 0].tolist()
            ranks.append(batches)
        seen = chain.from_iterable(batch["index"].tolist() for batch in chain.from_iterable(ranks))
        assert sorted(seen) == list(range(len(split)))


def test_the_order_is_that_of_seed_and_epoch_and_mixes_in_the_rows_in_memory():
    def order(seed: int, epoch: int) -> list[int]:
        split = small_split(200, [50] * 40)
        sampler = split.sampler(10, seed=seed)
        sampler.set_epoch(epoch)
        return list(chain.from_iterable(split[place]["index"].tolist() for place in sampler))

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1) != order(1, 1)
    resident = np.flatnonzero(np.array(order(0, 0)) < 200)
    quarters = np.histogram(resident, bins=4, range=(0, 2200))[0]
    assert quarters.min() > 20, "the rows with labels are spread over the epoch"


@pytest.mark.parametrize(("accumulate", "count"), [(1, 27), (4, 27), (4, 5)])
def test_each_batch_counts_by_its_share_of_the_step(accumulate, count):
    """Means over batches and ranks are means over the step's rows, and over its labelled rows."""
    unlabelled = small_split(31, [20] * 20)
    value = np.random.default_rng(0).normal(size=len(unlabelled))  # what a loss says of a row, by its index
    resident = replace(unlabelled.resident, labels=np.arange(31) % 2)

    def load(shard: int) -> EncodedSplit:
        return replace(unlabelled.load(shard), labels=np.full(20, IGNORED_LABEL))

    split = StreamedSplit(resident, unlabelled.sizes, load)
    samplers = [split.sampler(8, seed=1, rank=rank, world_size=2) for rank in (0, 1)]
    for sampler in samplers:
        sampler.follow(accumulate, count)
    steps: dict[int, list] = {}
    for number, places in enumerate(zip(*samplers, strict=True)):
        for sampler, place in zip(samplers, places, strict=True):
            batch = split[place]
            steps.setdefault(number // accumulate, []).append((batch, *sampler.shares[number]))
    assert len({len(step) for step in steps.values()}) == (1 if accumulate == 1 else 2), "the last one has fewer"
    for step in steps.values():
        index, labels = (np.concatenate([batch[key].numpy() for batch, _, _ in step]) for key in ("index", "labels"))
        rows = label = 0.0
        for batch, share, label_share in step:
            own, labelled = value[batch["index"]], batch["labels"].numpy() >= 0
            rows += own.mean() * share / (2 * accumulate)
            label += (own[labelled].mean() if labelled.any() else 0.0) * label_share * share / (2 * accumulate)
        assert rows == pytest.approx(value[index].mean())
        assert label == pytest.approx(value[index][labels >= 0].mean() if (labels >= 0).any() else 0.0)


def test_the_step_that_ends_a_limited_epoch_counts_whole():
    numbered = small_split(24, [20] * 8)
    split = StreamedSplit(two_labels(numbered.resident), numbered.sizes, lambda shard: two_labels(numbered.load(shard)))
    trainer = bare_trainer(max_epochs=1, limit_train_batches=5, limit_val_batches=0, accumulate_grad_batches=4)
    method = supervised()
    trainer.fit(method, TextDataModule(split, split.resident, 8))
    assert trainer.global_step == 2
    assert method.shares[:, 0] == pytest.approx([1, 1, 1, 1, 4])


def two_labels(split: EncodedSplit) -> EncodedSplit:
    """Two labels, and words of a small vocabulary."""
    return replace(split, labels=split.labels % 2, tokens=replace(split.tokens, values=split.tokens.values % 50))


def test_memory_holds_one_pool_of_shards():
    loads: list[int] = []
    split = small_split(10, [20] * 50, loads)
    most = 0
    for count, (pool, _) in enumerate(split.sampler(5), start=1):
        most = max(most, len(pool))
        done = 5 * count
        assert len(loads) * 20 <= done + 2 * POOL_SHARDS * 20, "a shard is read when its pool begins"
    assert sorted(loads) == list(range(50)), "each is read once an epoch"
    assert most <= POOL_SHARDS * 20 + 10 + 2 * 5


def test_an_interrupted_reading_goes_on_where_it_was(files, tmp_path):
    def source() -> Source:
        return Source(files, "x", "text", "utf-8", frozenset(), frozenset(), True, SHARD_ROWS)

    def read():
        read_slices(tmp_path / "killed", source())

    (tmp_path / "killed").mkdir()
    (tmp_path / "whole").mkdir()
    process = multiprocessing.get_context("fork").Process(target=read)
    process.start()
    deadline = time.monotonic() + 20
    while len(list((tmp_path / "killed").glob("*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.0005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    finished = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("*.json")}
    assert len(finished) >= 3
    found, counts = read_slices(tmp_path / "killed", source())
    whole, expected = read_slices(tmp_path / "whole", source())
    assert counts == expected and [path.name for path in found] == [path.name for path in whole]
    assert [path.read_bytes() for path in found] == [path.read_bytes() for path in whole]
    for name, moment in finished.items():
        assert (tmp_path / "killed" / name).stat().st_mtime_ns == moment


def test_killed_labelling_goes_on_and_several_processes_divide_it(files, reviews_file, splits, ready, tmp_path):
    transfer = Transfer.of(configuration(files, reviews_file, tmp_path), splits)
    answers = Answers(ready, tmp_path, cache=True)
    shards, context = len(transfer.store), multiprocessing.get_context("fork")

    def label(log: Path) -> None:
        before = set(labelled(transfer))
        cached = ReadyTeacher._stored

        def counted(self, *arguments):
            with log.open("a") as stream:
                stream.write(f"{arguments[1].number}\n")
            return cached(self, *arguments)

        ReadyTeacher._stored = counted  # in this process alone
        transfer.label(ready.tokenizer, answers)
        assert before <= set(labelled(transfer))

    first = context.Process(target=label, args=(tmp_path / "first",))
    first.start()
    deadline = time.monotonic() + 30
    while len(labelled(transfer)) < 4 and time.monotonic() < deadline:
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


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


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
    assert caplog.text.count("it is built anew") == 3
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
    with pytest.raises(KDError, match="no longer those that"):
        transfer.store.texts(0)
    taken = write_rows(tmp_path / "taken.jsonl", [splits.test["text"][0]])
    with pytest.raises(KDError, match=r"found none among 1 rows .* \(1 removed_from_train\); give others"):
        Transfer.of(configuration([taken], reviews_file, tmp_path), splits)


@pytest.mark.parametrize("damage", [False, True])
def test_an_ordinary_cache_is_made_in_pieces(ready, tmp_path, monkeypatch, damage):
    texts = [text for text, _ in make_reviews(250, seed=9)]
    expected = ready.live_logits(texts)
    whole, _ = ready.cached(texts, "train", tmp_path / "whole")
    np.testing.assert_array_equal(whole["logits"], expected)
    monkeypatch.setattr(teacher_cache, "PIECE_ROWS", 40)
    context = multiprocessing.get_context("fork")

    def build(log: str) -> None:
        stored = ReadyTeacher._stored

        def counted(self, answers, some, *rest):
            if len(some) <= 40:
                with (tmp_path / log).open("a") as stream:
                    stream.write(f"{some[0]}\n")
                time.sleep(0.05)
            return stored(self, answers, some, *rest)

        ReadyTeacher._stored = counted
        ready.cached(texts, "train", tmp_path / "pieces")

    first = context.Process(target=build, args=("first",))
    first.start()
    pieces = tmp_path / "pieces" / "teacher_cache"

    def finished() -> list[Path]:
        return [place for folder in pieces.glob("*.pieces/*/") for place in teacher_cache.entries(folder)]

    deadline = time.monotonic() + 30
    while len(finished()) < 2 and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    if damage:
        flip(finished()[0] / "values.npy")
    others = [context.Process(target=build, args=(name,)) for name in ("second", "third")]
    for other in others:
        other.start()
    for other in others:
        other.join(60)
    assert [other.exitcode for other in others] == [0, 0]
    done = [(tmp_path / name).read_text().splitlines() for name in ("second", "third")]
    # Of seven pieces, each once, and of those before the kill only the damaged one.
    assert len(done[0]) + len(done[1]) == len({*done[0], *done[1]}) <= 5 + damage
    found, seconds = ready.cached(texts, "train", tmp_path / "pieces")
    np.testing.assert_allclose(found["logits"], expected, atol=1e-6)
    assert seconds > 0
    (place,) = teacher_cache.entries(pieces)
    assert teacher_cache.damage(place) is None and json.loads((place / "meta.json").read_text())["split"] == "train"
    assert not list(pieces.glob("*.pieces"))


def test_features_are_made_in_pieces_too(ready, tmp_path, monkeypatch):
    texts = [text for text, _ in make_reviews(90, seed=9)]
    features = [Feature("hidden_states", 1), Feature("hidden_states", 2, "mean")]
    whole, _ = ready.cached(texts, "train", tmp_path / "whole", features)
    monkeypatch.setattr(teacher_cache, "PIECE_ROWS", 40)
    ready.cached(texts, "train", tmp_path / "pieces", features[:1])
    pieces, _ = ready.cached(texts, "train", tmp_path / "pieces", features)
    assert set(pieces) == set(whole)
    for name, column in whole.items():
        if isinstance(column, Ragged):
            np.testing.assert_array_equal(column.offsets, pieces[name].offsets)
            column, pieces[name] = column.values, pieces[name].values
        np.testing.assert_allclose(pieces[name], column, atol=2e-3)


def test_a_run_streams_what_kd_cache_build_has_labelled(options, files, tmp_path, capfd):
    stream = [
        *(
            *options,
            "student=dan",
            "tokenizer=words",
            "embeddings=random",
            f"data.unlabelled=[{','.join(map(str, files))}]",
        ),
        *("data.stream=true", "data.shard_rows=400", "trainer.max_epochs=1"),
    ]
    assert run_kd("cache", "build", *stream, "trainer.devices=2") == 0
    assert capfd.readouterr().out.count("labelled: ") == 2
    (store,) = Path("outputs/transfer").glob("*/")
    before = {place: place.stat().st_mtime_ns for place in store.rglob("values.npy")}
    shards = len(json.loads((store / "manifest.json").read_text())["shards"])
    assert len(before) == 3 * shards > 6, "the student's tokens, the teacher's tokens and the logits of every shard"
    assert run_kd("train", *stream, "hydra.run.dir=taught") == 0
    assert run_kd("train", *stream, "hydra.run.dir=alone", "method=supervised") == 0
    assert {place: place.stat().st_mtime_ns for place in store.rglob("values.npy")} == before
    taught, alone = (RunDirectory.finished(name) for name in ("taught", "alone"))
    facts = taught.environment()["data"]["transfer"]
    assert facts["rows"] > 2000 and facts["fates"]["duplicates"] > 100
    metrics = taught.metrics()
    assert metrics["teacher_cost"]["labelling_seconds"] > 0 and 0 <= metrics["padding_share"] < 0.5
    assert (taught.model / "tokenizer.json").read_bytes() == (alone.model / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(("step", "processes"), [({"SLURM_STEP_ID": "0", "SLURM_PROCID": "1"}, 1), ({}, 2)])
def test_labelling_in_a_slurm_job(fresh_options, monkeypatch, capfd, step, processes):
    """A task of ``srun --ntasks=2`` is one of two that share the work; a script without srun starts them itself."""
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "kd", "SLURM_NTASKS": "2", "SLURM_NODEID": "0", "SLURM_LOCALID": "0"}
    for name, value in (job | step).items():
        monkeypatch.setenv(name, value)
    assert run_kd("cache", "build", *fresh_options, "student=dan", "trainer.devices=2") == 0, capfd.readouterr().err
    assert capfd.readouterr().out.count("labelled: ") == processes


THREADS = """
import os, sys, yaml
from kd.training import single_run
config = yaml.safe_load(open(sys.argv[1]))
single_run.remember(config)
threads = [open(f"/proc/self/task/{name}/comm").read().strip() for name in os.listdir("/proc/self/task")]
print("threads:", *(name for name in threads if name != "jemalloc_bg_thd"))
"""
"""Those of a process that has read; jemalloc's own, which may start at any time, minds forks by itself."""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells of threads that Python did not start")
def test_a_sweep_may_fork_after_it_has_read_and_a_run_is_found_from_elsewhere(options, tmp_path, monkeypatch, capsys):
    write_rows(tmp_path / "more.parquet", [text for text, _ in make_reviews(300, seed=7)])
    stream = ["data.unlabelled=[more.parquet]", "data.stream=true", "data.shard_rows=100", "trainer.max_epochs=1"]
    assert run_kd("train", *options, "student=dan", *stream, "hydra.run.dir=run") == 0
    shutil.rmtree("outputs/transfer")
    command = [sys.executable, "-c", THREADS, "run/config.yaml"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1].split()
    assert Path("outputs/transfer").is_dir() and said[0] == "threads:" and len(said) == 2, said
    monkeypatch.chdir("/")
    assert run_kd("evaluate", tmp_path / "run") == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (["method=joint", "cache.use=false"], "data.stream=true is read by method=distillation and by its baseline"),
        (["data.unlabelled=null"], "data.stream=true streams the files of data.unlabelled, got none"),
        (["data.limit=9"], "data.limit chooses rows in memory; with data.stream=true give a smaller file instead"),
        (["cache.use=false"], "data.stream=true reads the teacher's logits from disk; leave cache.use=true"),
        (["data.shard_rows=0"], "data.shard_rows: expected a whole number of at least 1, got 0"),
        (["data.unlabelled=[none.parquet]"], "there is no file none.parquet"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_cannot_be_streamed_is_refused(fresh_options, files, setting, said, capsys):
    stream = ["data.stream=true", f"data.unlabelled=[{files[0]}]"]
    assert run_kd("train", *fresh_options, "student=dan", *stream, *setting) == 2
    assert said in capsys.readouterr().err


def test_a_run_of_before_keeps_its_name():
    before = {"method": {"_target_": "x"}, "data": {"path": "y", "source": {"path": "y"}}}
    now = {"method": {"_target_": "x"}, "data": {"path": "y", "source": {"path": "y", "stream": False}}}
    now["data"] |= {"stream": False, "shard_rows": 32768}
    assert identity(before) == identity(now)
    now["data"]["stream"] = True
    assert identity(before) != identity(now)


PEAKS = """
import sys
from pathlib import Path
from kd.data.shards import TextShards
from kd.data.slices import Source
from kd.data.sources import from_files
from kd.teacher.cache import texts_hash

def told(rows):
    lines = Path("/proc/self/status").read_text().splitlines()
    print(rows, next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024)

folder, few, many, reviews = map(Path, sys.argv[1:])
for path in (few, many):
    source = Source([path], path.name, "text", "utf-8", frozenset(), frozenset(), True, 8192)
    told(TextShards(folder, source, texts_hash).rows)
told(from_files(str(reviews), unlabelled=str(many), label_names=["negative", "positive"]).counts["unlabelled"])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel tells no peak of memory")
def test_reading_takes_memory_for_a_slice_and_not_for_the_rows(reviews_file, tmp_path):
    """Four times the rows take hardly more where they are streamed, and far more where they are not."""
    sizes = [20_000, 80_000]
    files = [
        write_rows(tmp_path / f"{rows}.parquet", [f"scene {number} of a film, {number:0200}" for number in range(rows)])
        for rows in sizes
    ]
    command = [sys.executable, "-c", PEAKS, *map(str, (tmp_path, *files, reviews_file))]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[2])
    rows, (few, many, in_memory) = zip(*(map(int, line.split()) for line in said.stdout.splitlines()), strict=True)
    assert rows == (*sizes, sizes[1])
    assert many - few < 15  # MiB at the peak, mapped files included
    assert in_memory - many > 30


def test_tokens_are_stored_in_the_fewest_bytes(files, reviews_file, splits, ready, tmp_path):
    transfer = Transfer.of(configuration(files, reviews_file, tmp_path), splits)
    texts = ShardTexts(transfer.store, 0)
    found = texts.tokens(ready.tokenizer, 24)
    assert found.values.dtype == np.uint16 and isinstance(found.values, np.memmap)
    expected = tokenize(ready.tokenizer, transfer.store.texts(0), 24)
    np.testing.assert_array_equal(found.values, expected.values)
    np.testing.assert_array_equal(found.offsets, expected.offsets)
