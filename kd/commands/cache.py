"""``kd cache ls|verify|rm|answers``: list, check, remove or share stored outputs of teachers."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from rich.console import Console
from rich.table import Table

from kd.errors import KDError
from kd.storage import records
from kd.storage.cache_records import CachedColumn
from kd.teacher import by_text
from kd.teacher import cache as teacher_cache


def main(arguments: list[str]) -> int:
    """List, check or remove the caches that the arguments name."""
    parser = argparse.ArgumentParser(
        prog="kd cache",
        description="Stored teacher outputs. kd cache build makes them before a run needs them; it has its own --help.",
    )
    parser.add_argument("action", choices=["ls", "verify", "rm", "answers"], help="list, check, remove, share")
    parser.add_argument(
        "keys",
        nargs="*",
        help="cache keys as ls prints them, or how they begin; none: all of them for ls and verify",
    )
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="as for kd train (default: outputs)")
    parser.add_argument("--out", type=Path, help="answers: a .parquet file for teacher=answers, without the texts")
    parser.add_argument("--all", action="store_true", help="rm: remove every cache")
    options = parser.parse_args(arguments)
    folder = options.outputs / "teacher_cache"
    if options.action == "rm" and bool(options.keys) == options.all:
        raise KDError("expected the keys to remove, or --all; kd cache ls prints the keys")
    chosen = choose(folder, options.keys)
    if options.action == "answers":
        return answers(chosen, options.out)
    if options.all:
        for unfinished in folder.glob("*.pieces"):
            shutil.rmtree(unfinished)
    return {"ls": ls, "verify": verify, "rm": rm}[options.action](chosen)


def choose(folder: Path, keys: list[str]) -> list[Path]:
    """Return the caches whose keys begin as given; all of them if no key is given.

    Raises:
        KDError: no key or several keys begin so.
    """
    found = teacher_cache.entries(folder) + by_text.stores(folder)
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


def damage(place: Path) -> str | None:
    """Return what is wrong with a cache, as a phrase; None if every checksum is right."""
    return by_text.damage(place) if by_text.is_store(place) else teacher_cache.damage(place)


def ls(places: list[Path]) -> int:
    """Print a table for each teacher. Damaged caches are named below, so that the tables fit 80 columns."""
    console, damaged = Console(), []
    tables: dict[str, Table] = {}
    for place in places:
        if problem := damage(place):
            damaged.append(f"{place.name} damaged: {problem}")
            continue
        if by_text.is_store(place):
            rows, seconds = by_text.size(place)
            meta = by_text.about(place) | {"rows": rows, "seconds": seconds, "split": by_text.EVERY}
        else:
            meta = records.read(place / "meta.json", CachedColumn)
        size = sum(path.stat().st_size for path in place.iterdir())
        table = tables.setdefault(str(meta.get("teacher", "")), _table())
        figures = str(meta["rows"]), f"{size / 1e6:.2f}", f"{meta['seconds']:.1f}"
        table.add_row(place.stem, str(meta.get("split", "")), meta["key"]["column"], *figures)
    for teacher, table in tables.items():
        console.print(f"teacher {teacher}", markup=False, highlight=False, soft_wrap=True)
        console.print(table)
    for line in damaged:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if not places:
        console.print("no teacher cache here yet")
    return 0


def _table() -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for number, name in enumerate(("key", "split", "column", "rows", "MB", "s")):
        table.add_column(name, justify="left" if number < 3 else "right", no_wrap=True)
    return table


def verify(places: list[Path]) -> int:
    """Compare every checksum; return 1 if a cache is damaged."""
    problems = [damage(place) for place in places]
    for place, problem in zip(places, problems, strict=True):
        print(f"{place.name}  {problem or 'whole'}")
    return int(any(problems))


def answers(places: list[Path], out: Path | None) -> int:
    """Write the logits by text of one teacher as a file for ``teacher=answers``. It has hashes in place of the texts.

    Raises:
        KDError: not one store of logits by text is chosen, or there is no ``--out FILE.parquet``.
    """
    import pyarrow.parquet

    chosen = [place for place in places if by_text.is_store(place)]
    if len(chosen) != 1:
        raise KDError(f"expected the key of one cache of every text, found {len(chosen)}; kd cache ls prints them")
    if out is None or out.suffix != ".parquet":
        raise KDError(f"--out: expected FILE.parquet, got {out}")
    rows = by_text.rows_of(chosen[0])
    hashed = [text.ljust(by_text.HASH_BYTES, b"\0").hex() for text in rows["text"].tolist()]  # numpy drops last zeros
    logits = pyarrow.array(list(rows["logits"].round(3)), pyarrow.list_(pyarrow.float32()))
    table = pyarrow.table({by_text.HASHED: hashed, "logits": logits})
    pyarrow.parquet.write_table(table, out, compression="zstd", compression_level=19)
    print(f"{len(rows)} answers of {by_text.about(chosen[0])['teacher']} are in {out}")
    return 0


def rm(places: list[Path]) -> int:
    """Remove caches."""
    for place in places:
        teacher_cache.remove(place)
        print(f"{place.name}  removed")
    return 0
