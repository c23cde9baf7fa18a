"""Small data files for the tests, and what holds for all splits."""

import bz2
import csv
import gzip
import json
import lzma
import random
import zipfile
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from kd.data.splits import FATES
from tests.conftest import make_reviews

NAMES = ["negative", "positive"]


def reviews(rows: int, first: int = 0) -> list[dict]:
    return [{"text": f"review number {i} of {rows}", "label": i % 2} for i in range(first, first + rows)]


def write(path: Path, rows: list[dict]) -> Path:
    """Write rows in the format of the suffix."""
    name = path.name
    if name.endswith(".parquet"):
        parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)
        return path
    opener = gzip.open if name.endswith(".gz") else open
    with opener(path, "wt", encoding="utf-8") as stream:
        if ".jsonl" in name:
            stream.writelines(json.dumps(row) + "\n" for row in rows)
        elif ".tsv" in name:
            stream.writelines("\t".join(map(str, row)) + "\n" for row in [rows[0], *(r.values() for r in rows)])
        else:
            table = csv.DictWriter(stream, rows[0])
            table.writeheader()
            table.writerows(rows)
    return path


def raw(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def plain_content(name: str) -> bytes:
    """Two rows in the format of a suffix; the second label is bad."""
    rows = [("a film", "good"), ("so dull", "bad")]
    objects = [{"text": text, "label": label} for text, label in rows]
    match Path(name).suffix:
        case ".csv":
            content = "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows)
        case ".tsv":
            content = "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows)
        case ".json":
            content = json.dumps(objects, indent=1)
        case ".jsonl":
            content = "".join(json.dumps(row) + "\n" for row in objects)
        case _:
            content = "".join(f"__label__{label} {text}\n" for text, label in rows)
    return content.encode()


def packed_file(path: Path, content: bytes, member: str = "") -> Path:
    """Compress as the suffix says."""
    match path.suffix:
        case ".zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr(member or path.stem, content)
        case ".zst":
            with pa.output_stream(str(path), compression="zstd") as stream:
                stream.write(content)
        case suffix:
            packers = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
            path.write_bytes(packers[suffix](content))
    return path


def write_rows(path: Path, rows: list) -> Path:
    """Write a file with a column of texts, in the format of the suffix."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
        return path
    table = pa.table({"number": range(len(rows)), "text": pa.array(rows, pa.string())})
    if path.suffix == ".parquet":
        parquet.write_table(table, path, row_group_size=300)
        return path
    opened = pa.ipc.new_file if path.name.startswith("file") else pa.ipc.new_stream
    with opened(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=250)
    return path


def transfer_files(folder: Path, reviews_file: Path) -> list[Path]:
    """Write the four files of one transfer set. Some texts are empty, repeated, held out or already in train."""
    known = [line.rpartition(",")[0] for line in reviews_file.read_text().splitlines()[1:]]
    rows = [text for text, _ in make_reviews(2400, seed=7)]
    generator = random.Random(3)
    strewn = [*known, *(text.upper() + " " for text in known[:40]), *generator.sample(rows, 200), "", "  ", None]
    rows += strewn
    generator.shuffle(rows)
    parts = [rows[start::4] for start in range(4)]
    names = ("file.arrow", "stream.arrow", "rows.parquet", "rows.jsonl")
    return [write_rows(folder / name, part) for name, part in zip(names, parts, strict=True)]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def damage(path: Path, seed: int, other: Path | None = None) -> str:
    """Damage a file in one of many ways, which is returned; ``other`` is a valid file of the same kind."""
    draw, content = random.Random(seed), bytearray(path.read_bytes())
    ways = ["byte", "cut", "empty", "null", "deep", "missing"]
    ways += ["value", "unsealed"] * (path.suffix == ".json") + ["other"] * (other is not None)
    way = draw.choice(ways)
    match way:
        case "byte":
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        case "cut":
            content = content[: draw.randrange(len(content))]
        case "empty":
            content = bytearray()
        case "null":
            content = bytearray(b"null")
        case "deep":
            content = bytearray(b"[" * 100_000)
        case "other":
            content = bytearray(other.read_bytes() if other else b"")
        case "value" | "unsealed":
            values = json.loads(content)
            key = draw.choice([key for key in values if key != "sha256_of_the_rest"])
            values[key] = draw.choice([None, True, -1, "x", [], {}, [None], {"a": 1}, 0.5, 10**30])
            if way == "unsealed":
                del values["sha256_of_the_rest"]
            content = bytearray(json.dumps(values).encode())
    path.unlink()
    if way != "missing":
        path.write_bytes(content)
    return way


def contents(splits) -> dict[str, set]:
    return {
        name: set(zip(split["text"], split["label"], strict=True))
        for name, split in (("train", splits.train), ("validation", splits.validation), ("test", splits.test))
    }


def assert_adds_up(splits) -> None:
    """Check that every row is used, or counted as left out."""
    counts = splits.counts
    assert counts["read"] == counts["used"] + sum(counts[fate] for fate in FATES)
    assert counts["used"] == len(splits.train) + len(splits.validation) + len(splits.test)
    for name, split in counts["splits"].items():
        assert split["rows"] == sum(split["labels"].values()) + split["unlabelled"] == len(getattr(splits, name))
