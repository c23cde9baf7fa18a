"""``kd cache ls|verify|rm``: list, check or remove the teacher outputs on disk."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from rich.console import Console
from rich.table import Table

from kd.errors import KDError
from kd.storage.files import read_json
from kd.teacher import cache as teacher_cache


def main(arguments: list[str]) -> int:
    """Do one of the actions and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="kd cache",
        description="Stored teacher outputs. kd cache build makes them before a run; see kd cache build --help.",
    )
    parser.add_argument("action", choices=["ls", "verify", "rm"], help="list, check every checksum, or remove")
    parser.add_argument(
        "keys",
        nargs="*",
        help="cache keys as ls prints them, or the beginning of a key; without keys ls and verify use all caches",
    )
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="as for kd train (default: outputs)")
    parser.add_argument("--all", action="store_true", help="rm: remove every cache")
    options = parser.parse_args(arguments)
    folder = options.outputs / "teacher_cache"
    if options.action == "rm" and bool(options.keys) == options.all:
        raise KDError("expected the keys to remove, or --all; kd cache ls prints the keys")
    chosen = choose(folder, options.keys)
    if options.all:
        for unfinished in folder.glob("*.pieces"):
            shutil.rmtree(unfinished)
    return {"ls": ls, "verify": verify, "rm": rm}[options.action](chosen)


def choose(folder: Path, keys: list[str]) -> list[Path]:
    """Return the caches whose keys begin like this; all caches if no key is given.

    Raises:
        KDError: a key fits no cache, or several.
    """
    found = teacher_cache.entries(folder)
    if not keys:
        return found
    chosen = []
    for key in keys:
        fits = [place for place in found if place.name.startswith(key)]
        if len(fits) != 1:
            raise KDError(
                f"expected the key of one cache in '{folder}', found {len(fits)} for '{key}'; kd cache ls prints them"
            )
        chosen += fits
    return chosen


def ls(places: list[Path]) -> int:
    """Print a table of caches for each teacher, narrow enough for 80 columns, and the damaged caches below."""
    console = Console()
    tables: dict[str, list[tuple[str, ...]]] = {}
    damaged: dict[str, str] = {}
    for place in places:
        if problem := teacher_cache.damage(place):
            damaged[place.name] = problem
            continue
        meta = read_json(place / "meta.json")
        size = sum(path.stat().st_size for path in place.iterdir())
        tables.setdefault(str(meta.get("teacher", "")), []).append(
            (
                place.name,
                str(meta.get("split", "")),
                meta["key"]["column"],
                str(meta["rows"]),
                f"{size / 1e6:.2f}",
                f"{meta['seconds']:.1f}",
            )
        )
    for teacher, rows in tables.items():
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
        for number, name in enumerate(("key", "split", "column", "rows", "MB", "s")):
            table.add_column(name, justify="left" if number < 3 else "right", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        console.print(f"teacher {teacher}", markup=False, highlight=False, soft_wrap=True)
        console.print(table)
    for name, problem in damaged.items():
        console.print(f"{name} damaged: {problem}", markup=False, highlight=False, soft_wrap=True)
    if not places:
        console.print("no teacher cache here yet")
    return 0


def verify(places: list[Path]) -> int:
    """Check every cache; the exit code is 1 if one is damaged."""
    bad = 0
    for place in places:
        problem = teacher_cache.damage(place)
        bad += problem is not None
        print(f"{place.name}  {problem or 'whole'}")
    return 1 if bad else 0


def rm(places: list[Path]) -> int:
    """Remove the caches."""
    for place in places:
        teacher_cache.remove(place)
        print(f"{place.name}  removed")
    return 0
