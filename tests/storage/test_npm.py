"""Packages by the real npm, from a folder instead of the registry."""

import json
import shutil
from dataclasses import replace

import pytest

from kd.errors import KDError
from kd.storage import assets
from kd.storage.assets import Asset, fetch
from kd.storage.npm import Package
from tests.storage.conftest import content

LIBRARY = b"export const one = 1;\n"
FILES = {"library.js": content(LIBRARY)}


@pytest.fixture
def package(tmp_path, monkeypatch) -> Package:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    monkeypatch.setenv("KD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("npm_config_offline", "true")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    folder = tmp_path / "package"
    (folder / "dist").mkdir(parents=True)
    (folder / "dist" / "library.min.mjs").write_bytes(LIBRARY)
    scripts = {"prepack": "touch ran", "prepare": "touch ran"}
    (folder / "package.json").write_text(json.dumps({"name": "kd-toy", "version": "1.0.0", "scripts": scripts}))
    return Package(str(folder), {"library.js": "dist/library.min.mjs"})


def use(monkeypatch, package: Package, files=FILES) -> None:
    monkeypatch.setattr(assets, "ASSETS", {"toy": Asset((package,), files, on_demand=True)})


def test_a_second_fetch_needs_no_npm(package, monkeypatch, capsys):
    use(monkeypatch, package)
    folder = fetch("toy")
    assert [path.name for path in folder.iterdir()] == ["library.js"]
    assert (folder / "library.js").read_bytes() == LIBRARY
    assert not list((folder.parents[2] / "package").glob("ran")), "no script of the package ran"
    monkeypatch.setenv("PATH", "")
    assert fetch("toy") == folder
    assert capsys.readouterr().err.count("downloading") == 1


def test_other_content_is_refused(package, monkeypatch):
    use(monkeypatch, package, {"library.js": content(b"other\n")})
    with pytest.raises(KDError, match=r"library\.js has 22 bytes instead of 6"):
        fetch("toy")
    assert not [path for path in (assets.home() / "assets").rglob("*") if path.is_file() and path.suffix == ".js"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"members": {"library.js": "gone.js"}}, "damaged .*gone.js"),
        ({"title": "kd-toy@1.0.0"}, "npm failed: npm error"),
    ],
)
def test_what_npm_cannot_give_is_one_sentence(package, monkeypatch, change, reason):
    use(monkeypatch, replace(package, **change))
    with pytest.raises(KDError, match=reason) as raised:
        fetch("toy")
    assert "\n" not in str(raised.value)


def test_without_npm_it_says_what_to_install(package, monkeypatch):
    use(monkeypatch, package)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(KDError, match=r"npm is missing; install Node\.js"):
        fetch("toy")
