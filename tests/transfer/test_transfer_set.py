"""Transfer sets on disk: shared, whole, resumed."""

import logging
import multiprocessing
import os
import signal

import pandas
import pytest

from kd.storage.checksum import file_sha256
from kd.transfer import transfer_set
from kd.transfer.base import Step
from kd.transfer.ngram_model import Halves
from kd.transfer.recipe import Known, TransferRecipe
from kd.transfer.transfer_set import TransferSet
from tests.end_to_end.test_faults import fill, mounted


class Slow(Step):
    """Kills the process in its second part while the flag is there."""

    def __init__(self, flag=None):
        super().__init__()
        self.flag = flag

    def parts(self, train, seed):
        yield from map(self.texts, range(3))

    def texts(self, number):
        if number == 1 and self.flag and self.flag.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        yield from (f"{'long ' * 20}text {number} of number {place}" for place in range(200))


def recipe(step, rows=None, column="text"):
    return TransferRecipe({"step": step}, {"step": {"_target_": "x"}}, 0, rows, column)


def times(place):
    return {path: path.stat().st_mtime_ns for path in place.rglob("part-*")}


def test_the_set_is_made_once_and_is_plain_parquet(splits, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer_set, "SHARD_ROWS", 50)
    known = Known.of(splits)
    made = TransferSet(tmp_path, recipe(Halves(), column="review"), known)
    assert made.is_new and len(made.files) > 2
    rows = pandas.concat(map(pandas.read_parquet, made.files))
    assert list(rows) == ["review", "step"] and set(rows["step"]) == {"step"}
    assert len(rows) == rows["review"].nunique() == made.manifest["rows"] == made.facts()["steps"]["step"]["used"]
    before = times(tmp_path)
    again = TransferSet(tmp_path, recipe(Halves(), column="review"), known)
    assert not again.is_new and times(tmp_path) == before
    assert again.report().startswith(f"transfer set: {len(rows)} texts, made before: step {len(rows)} of ")
    assert "made in" in made.report() and "dropped" in made.report()


def test_a_smaller_set_uses_the_parts_of_a_larger_one(splits, tmp_path):
    known = Known.of(splits)
    TransferSet(tmp_path, recipe(Halves()), known)
    before = times(tmp_path / "transfer_sets" / "steps")
    small = TransferSet(tmp_path, recipe(Halves(), rows=10), known)
    assert small.manifest["rows"] == 10 and times(tmp_path / "transfer_sets" / "steps") == before


@pytest.mark.parametrize("harm", ["manifest", "shard", "gone"])
def test_a_damaged_set_is_made_again(splits, tmp_path, caplog, harm):
    known = Known.of(splits)
    made = TransferSet(tmp_path, recipe(Halves()), known)
    sums = list(map(file_sha256, made.files))
    harmed = made.place / "manifest.json" if harm == "manifest" else made.files[0]
    harmed.unlink() if harm == "gone" else harmed.write_bytes(harmed.read_bytes()[:-9])
    with caplog.at_level(logging.WARNING):
        again = TransferSet(tmp_path, recipe(Halves()), known)
    assert again.is_new and list(map(file_sha256, again.files)) == sums
    assert "is damaged and is made again" in caplog.text


def test_finished_parts_stay_after_a_kill(splits, tmp_path):
    known, flag = Known.of(splits), tmp_path / "flag"
    flag.touch()
    process = multiprocessing.get_context("fork").Process(
        target=TransferSet, args=(tmp_path / "a", recipe(Slow(flag)), known)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    before = times(tmp_path / "a")
    assert [path.name for path in before] == ["part-00000.arrow"]
    flag.unlink()
    resumed, whole = (TransferSet(tmp_path / name, recipe(Slow()), known) for name in "ab")
    assert before.items() <= times(tmp_path / "a").items()
    assert resumed.facts()["sha256"] == whole.facts()["sha256"]


def test_finished_parts_stay_on_a_full_disk(splits, tmp_path):
    known = Known.of(splits)
    with mounted(tmp_path / "disk", "-o", "size=2m") as disk:
        ballast = fill(disk, 60)  # room for one part of 24 kilobytes and half a second one
        with pytest.raises(OSError, match="No space left"):
            TransferSet(disk / "outputs", recipe(Slow()), known)
        before = times(disk)
        assert before
        ballast.unlink()
        resumed = TransferSet(disk / "outputs", recipe(Slow()), known)
        assert before.items() <= times(disk).items()
        assert not list(disk.rglob(".part-*"))
        assert resumed.facts()["sha256"] == TransferSet(tmp_path / "b", recipe(Slow()), known).facts()["sha256"]
