"""The wheel alone gives the command and its configuration, in any folder."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def kd(tmp_path_factory) -> Path:
    """The command in an environment that holds the wheel; the libraries are found in this one."""
    pytest.importorskip("hatchling")
    place = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", place, ROOT]
    subprocess.run([*pip, *build], check=True, timeout=300)
    venv.create(place / "venv", with_pip=False)
    python = place / "venv" / "bin" / "python"
    (wheel,) = place.glob("*.whl")
    install = ["--python", python, "install", "--no-index", "--no-deps", wheel]
    subprocess.run([*pip, *install], check=True, timeout=300)
    (packages,) = (place / "venv").glob("lib/python*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")  # after its own packages
    return python.with_name("kd")


def run(kd: Path, *words: object, folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [kd, *map(str, words)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_quickstart_runs_in_an_empty_folder(kd, common_options, tmp_path):
    """With a tiny teacher and few rows: tests are offline."""
    where = run(kd.with_name("python"), "-c", "import kd; print(kd.__file__)", folder=tmp_path)
    assert str(kd.parents[1]) in where, "the installed package, not the checkout"
    small = [word for word in common_options if "embedding_size" not in word] + ["embeddings=random"]
    run(kd, "train", "-m", "experiment=quickstart", "method=supervised,distillation", *small, folder=tmp_path)
    printed = run(kd, "report", "outputs/quickstart", folder=tmp_path)
    assert "distillation" in printed and "supervised" in printed
    assert (tmp_path / "outputs" / "quickstart" / "report" / "index.html").is_file()
    place = "outputs/quickstart/textcnn-distillation-seed0"
    assert "prediction" in run(kd, "predict", place, "a charming film", folder=tmp_path)
    assert "student=bilstm" in run(kd, "completion", "query", "kd train student=", folder=tmp_path)
    assert "experiment=mine" in run(kd, "init", "own", folder=tmp_path)
