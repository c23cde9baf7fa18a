"""Work in pieces: each is built once, by whichever process takes it."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from kd.storage.pieces import share

PIECES = 8


def work(folder: Path) -> None:
    def build(piece: int) -> None:
        with (folder / "log").open("a") as log:
            log.write(f"{piece} {os.getpid()}\n")
        time.sleep(0.1)
        (folder / f"{piece}.done").touch()

    share(folder, PIECES, lambda piece: (folder / f"{piece}.done").exists(), build)


def test_processes_divide_the_pieces(tmp_path):
    (tmp_path / "3.done").touch()
    processes = [multiprocessing.get_context("fork").Process(target=work, args=(tmp_path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    pieces, builders = zip(*(line.split() for line in (tmp_path / "log").read_text().splitlines()), strict=True)
    assert sorted(pieces) == [str(piece) for piece in range(PIECES) if piece != 3]
    assert len(set(builders)) > 1
    assert not list(tmp_path.glob("*.lease"))


def test_a_piece_that_fails_is_free_for_the_next_process(tmp_path):
    def fail(piece: int) -> None:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        share(tmp_path, 1, lambda piece: False, fail)
    work(tmp_path)
    assert len(list(tmp_path.glob("*.done"))) == PIECES
