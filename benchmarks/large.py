"""Measure time and memory of reading, pseudo-labelling and training with a large streamed transfer set.

    python benchmarks/large.py [--rows 10000000] [--folder DIR] [--keep]

A row is made of two Rotten Tomatoes sentences: the beginning of one and the end of the other, with one word removed
and two words swapped. One row in a hundred is repeated. The rows are written to a Parquet file. A teacher with two
layers of width 32 is fine-tuned on the labelled sentences and pseudo-labels the rows, and a DAN is trained on them for
one epoch.

Each phase is a process of its own; the kernel measures its peak of resident memory, with mapped files. The first and
the last 100,000 rows of a phase are compared in seconds of the clock and, because other processes disturb these, in
seconds of the CPU. Labelling is killed once (SIGKILL) and started again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SHARD_ROWS = 32_768
SPAN = 100_000
BATCH_SIZE = 256
MAX_LENGTH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, help="where the rows and all other files are written")
    parser.add_argument("--keep", action="store_true", help="do not delete the folder at the end")
    parser.add_argument("--phase", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rows <= SHARD_ROWS:
        parser.error(f"--rows must be above {SHARD_ROWS}: a labelling is killed between two shards")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if options.phase:
        {"generate": generate, "read": read, "train": train}[options.phase](options.folder, options.rows)
        return
    folder = options.folder or Path(tempfile.mkdtemp(prefix="kd-large-"))
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    print(f"{options.rows:,} rows, shards of {SHARD_ROWS:,}, one thread; in {folder}", flush=True)
    for name in ("generate", "read", "label", "train"):
        if name == "label":
            label(folder, options.rows)
            continue
        record, at = folder / f"{name}.json", time.perf_counter()
        seconds, peak = phase(name, folder, options.rows)
        report(name, seconds, peak, options.rows, record if record.exists() else None, at)
    for name in ("rows.parquet", "outputs/transfer"):
        print(
            f"on disk: {name} {size(folder / name) / options.rows:.0f} bytes a row, {size(folder / name) / 1e9:.2f} GB"
        )
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    print(f"validation accuracy {metrics['validation']['accuracy']:.3f}", end="; ")
    print(f"all phases {(time.perf_counter() - begun) / 60:.1f} min")
    if not options.keep:
        shutil.rmtree(folder)


Spans = dict[str, tuple[float, float]]
"""Clock or CPU -> microseconds for each of the first `SPAN` rows and of the last `SPAN` rows."""


def report(name: str, seconds: float, peak: float, rows: int, record: Path | None = None, begun: float = 0.0) -> None:
    """Print a phase's time and its peak of memory, and then compare its first and last rows."""
    line = f"{name:9} {seconds:7.0f} s  {1e6 * seconds / rows:6.1f} us a row  peak {peak:5.2f} GiB"
    if record:
        line += f"  first row after {json.loads(record.read_text())[0][1] - begun:.0f} s"
    print(line, flush=True)
    parts = spans(record) if record else None
    for measure, (first, last) in (parts or {}).items():
        line = f"first {SPAN:,} rows {first:5.1f} us a row, last {SPAN:,} rows {last:5.1f} ({last / first - 1:+.0%})"
        print(f"          {measure:5} {line}", flush=True)


def phase(name: str, folder: Path, rows: int) -> tuple[float, float]:
    """Run a phase in a process of its own. Return seconds, and the peak of resident memory in GiB."""
    command = [sys.executable, __file__, "--phase", name, "--folder", str(folder), "--rows", str(rows)]
    return finish(start(command, folder / f"{name}.log"), folder / f"{name}.log")


def start(command: list[str], log: Path) -> tuple[subprocess.Popen, float]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "COLUMNS": "100"}
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment)
    return process, time.perf_counter()


def finish(started: tuple[subprocess.Popen, float], log: Path, expected: int = 0) -> tuple[float, float]:
    process, begun = started
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != expected:
        raise SystemExit(f"{log} ended with {process.returncode}:\n{log.read_text()[-3000:]}")
    return time.perf_counter() - begun, usage.ru_maxrss / 2**20


def size(place: Path) -> int:
    files = place.rglob("*") if place.is_dir() else [place]
    return sum(file.stat().st_size for file in files if file.is_file())


def spans(record: Path) -> Spans | None:
    """Compare first and last rows by marks ``[rows so far, seconds, CPU seconds]``; None if they would overlap."""
    marks = np.array(json.loads(record.read_text()))
    done = marks[:, 0] - marks[0, 0]
    if done[-1] < 3 * SPAN:
        return None
    parts = marks[done <= SPAN], marks[done[-1] - done <= SPAN]
    return {
        name: tuple(1e6 * (part[-1, column] - part[0, column]) / (part[-1, 0] - part[0, 0]) for part in parts)
        for column, name in enumerate(("clock", "CPU"), start=1)
    }


def mark(rows: int) -> list[float]:
    return [rows, time.perf_counter(), time.process_time()]


def sentences() -> list[list[str]]:
    """Return the words of the labelled sentences in train."""
    from kd.config import build
    from kd.config.compose import composed

    return [text.split() for text in build.splits(composed([])).train["text"]]


def generate(folder: Path, rows: int) -> None:
    """Write the rows, one row group at a time."""
    import pyarrow as pa
    from pyarrow import parquet

    known, generator = sentences(), np.random.default_rng(0)
    schema = pa.schema([("text", pa.string())])
    with parquet.ParquetWriter(folder / "rows.parquet", schema) as writer:
        for begin in range(0, rows, SHARD_ROWS):
            count = min(SHARD_ROWS, rows - begin)
            picks = generator.integers(0, len(known), (count, 2)).tolist()
            places = generator.random((count, 4)).tolist()
            texts = [spliced(known[one], known[two], *place) for (one, two), place in zip(picks, places, strict=True)]
            for twice in generator.integers(0, count, (count // 100, 2)).tolist():
                texts[twice[0]] = texts[twice[1]]
            writer.write_table(pa.table([texts], schema=schema))


def spliced(one: list[str], two: list[str], cut: float, resume: float, drop: float, swap: float) -> str:
    """Join the beginning of one sentence and the end of another, remove a word and swap two neighbours."""
    words = one[: 3 + int(cut * len(one))][:14] + two[int(resume * len(two)) :][:10]
    del words[int(drop * len(words))]
    place = int(swap * (len(words) - 1))
    words[place : place + 2] = words[place : place + 2][::-1]
    return " ".join(words)


def overrides(folder: Path) -> list[str]:
    """Return the overrides for ``kd cache build`` and for training."""
    return [
        *("method=distillation", "student=dan", "student.embedding_size=32", "student.hidden_size=64"),
        *("tokenizer=teacher", "embeddings=random", "teacher=hf", f"teacher.name_or_path={folder / 'backbone'}"),
        *("teacher.learning_rate=1e-3", "teacher.labelling_batch_size=512", f"data.max_length={MAX_LENGTH}"),
        *(f"data.unlabelled=[{folder / 'rows.parquet'}]", "data.stream=true", f"data.shard_rows={SHARD_ROWS}"),
        *(f"data.batch_size={BATCH_SIZE}", "trainer=cpu", "trainer.max_epochs=1", "callbacks=[checkpoint]"),
        *("threads=1", "alpha=0.9", "trainer.log_every_n_steps=100", f"outputs={folder / 'outputs'}"),
    ]


def configuration(folder: Path):
    from kd.config.compose import composed

    return composed(overrides(folder))


def read(folder: Path, rows: int) -> None:
    """Make the teacher's pretrained model and the shards of texts."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from kd.config import build
    from kd.data import slices
    from kd.storage.assets import resolve
    from kd.storage.model_folder import load_tokenizer
    from kd.teacher.transfer_set import Transfer

    tokenizer = load_tokenizer(Path(resolve("asset:all-minilm-l6-v2")))
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder / "backbone")
    tokenizer.save_pretrained(folder / "backbone")

    marks, write = [], slices._write_slice

    def timed(*arguments):
        marks[:] = marks or [mark(0)]
        found = write(*arguments)
        marks.append(mark(marks[-1][0] + found.read))
        return found

    slices._write_slice = timed
    config = configuration(folder)
    Transfer.of(config, build.splits(config))
    (folder / "read.json").write_text(json.dumps(marks))


def label(folder: Path, rows: int) -> None:
    """Pseudo-label the rows: kill the process once, and start it again."""
    command, log = [sys.executable, "-m", "kd", "cache", "build", *overrides(folder)], folder / "label.log"
    shards = -(-rows // SHARD_ROWS)
    started = start(command, log)
    while len(labelled(folder)) < max(1, shards // 20):
        if started[0].poll() is not None:
            raise SystemExit(log.read_text()[-3000:])
        time.sleep(0.05)
    started[0].send_signal(signal.SIGKILL)
    before, peak = finish(started, log, expected=-signal.SIGKILL)
    kept = labelled(folder)
    started, marks = start(command, log), []
    while (used := processor_seconds(started[0].pid)) is not None:
        begun = len(re.findall(r"labelling \d+ transfer .*\(once\)", log.read_text()))
        if begun and (not marks or begun * SHARD_ROWS > marks[-1][0]):
            marks.append([begun * SHARD_ROWS, time.perf_counter(), used])
        time.sleep(0.1)
    seconds, again = finish(started, log)
    (folder / "label.json").write_text(json.dumps(marks))
    found = labelled(folder)
    untouched = sum(found[place] == moment for place, moment in kept.items())
    report("label", before + seconds, max(peak, again), rows, folder / "label.json", started[1])
    print(
        f"          killed after {before:.0f} s with {len(kept)} shards labelled; the same command labelled the other "
        f"{len(found) - len(kept)} and left {untouched} of {len(kept)} as they were",
        flush=True,
    )


def labelled(folder: Path) -> dict[str, float]:
    """Return when the logits of each shard were complete."""
    found = {}
    for place in folder.glob("outputs/transfer/*/teacher_cache/*/meta.json"):
        if ".building" not in place.parent.name and json.loads(place.read_text())["key"]["column"] == "logits":
            found[place.parent.name] = place.stat().st_mtime
    return found


def processor_seconds(process: int) -> float | None:
    """Return the CPU seconds that a process has used; None if it has ended. Only on Linux."""
    state, *figures = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return None if state == "Z" else sum(map(int, figures[10:12])) / os.sysconf("SC_CLK_TCK")


def train(folder: Path, rows: int) -> None:
    """Train for one epoch, with a mark after each ten batches."""
    import lightning

    from kd.training import single_run
    from kd.training import train as training

    marks = []

    class Clock(lightning.Callback):
        def on_train_epoch_start(self, trainer, method):
            marks.append(mark(0))

        def on_train_batch_end(self, trainer, method, outputs, batch, batch_index):
            if batch_index % 10 == 9:
                marks.append(mark((batch_index + 1) * BATCH_SIZE))

    make_trainer = training.make_trainer

    def timed(config, run):
        made = make_trainer(config, run)
        made.callbacks.append(Clock())
        return made

    training.make_trainer = timed
    (folder / "run").mkdir(exist_ok=True)
    single_run.train(configuration(folder), folder / "run")
    (folder / "train.json").write_text(json.dumps(marks))


if __name__ == "__main__":
    main()
