"""Kill runs with signal 9 at random moments; the same command afterwards must finish like an undisturbed run.

    python -m tests.end_to_end.kill_nine [--kills 50] [--seed 0]

First an undisturbed run is observed, to learn how long its phases take: fine-tuning the teacher, labelling, training,
writing checkpoints, measuring, writing a report. Then the run is started many times, each time in an empty folder, and
killed with its whole process group at a random moment of one phase, the phases in turn. Then the same command is
repeated. A kill is survived if the command ends with code 0, if weights, predictions, metrics, curve and teacher equal
those of the undisturbed run to the last bit, and if no unfinished file is left. Prints a table; the exit code is 1 if
one kill was not survived.

The runs are forked from this process, so that the imports are done a single time; it must have no other thread.
"""

from __future__ import annotations

import argparse
import difflib
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas
import torch
from rich.console import Console
from rich.table import Table

import kd.training.single_run  # noqa: F401  the imports that every fork needs
from kd.run.directory import RunDirectory
from tests.conftest import make_reviews, make_teacher, run_kd

ROWS, EPOCHS = 400, 4
RUN, OUTPUTS, REPORT = Path("run"), Path("outputs"), Path("report")
PATIENCE = 120.0
UNFINISHED = ("*.building-*", "*.tmp", "*.partial", "tmp*", ".*.tmp", ".rank-*", ".report.*")
TIMES = ("training_seconds", "latency", "teacher_cost", "speedup", "energy")


def begun(pattern: str) -> Callable[[], bool]:
    """Return a function that tests whether a path matches the pattern."""
    return lambda: next(Path().glob(pattern), None) is not None


def checkpoint_touched() -> Callable[[], bool]:
    """Return a function that tests whether a file in the checkpoints' folder has changed since its first call."""
    seen: list[dict] = []

    def look() -> bool:
        try:
            entries = {one.name: one.stat().st_mtime_ns for one in os.scandir(RUN / "checkpoints")}
        except FileNotFoundError:
            entries = {}
        seen.append(entries)
        return (
            bool(entries) and entries != seen[0] and random.random() < 0.3
        )  # so that not always the first file is meant

    return look


PHASES: dict[str, tuple[Callable[[], Callable[[], bool]], Callable[[], bool]]] = {
    "starting": (lambda: lambda: True, begun("outputs/teachers/*.building-*")),
    "teacher fine-tuning": (lambda: begun("outputs/teachers/*.building-*"), begun("outputs/teachers/*/teacher.json")),
    "labelling": (lambda: begun("outputs/teacher_cache/*"), begun("run/environment.json")),
    "training, validation": (lambda: begun("run/environment.json"), begun("run/model")),
    "checkpoint writing": (checkpoint_touched, begun("run/checkpoints/last.ckpt")),
    "measuring, writing": (lambda: begun("run/model"), begun("run/metrics.json")),
}
"""Tests for the beginning and the end of each phase."""


def command(folder: Path) -> list[str]:
    return [
        *("train", "data=files", f"data.path={folder}/reviews.csv", "data.max_length=24", "data.batch_size=16"),
        *("data.label_names=[negative,positive]", "data.validation_share=0.2", "data.test_share=0.2", "threads=1"),
        *("teacher=hf", f"teacher.name_or_path={folder}/teacher", "teacher.epochs=2", "teacher.batch_size=8"),
        *("student=dan", "student.embedding_size=32", "student.hidden_size=2048", "trainer=cpu"),
        *("method=distillation", f"trainer.max_epochs={EPOCHS}", "callbacks=[checkpoint]", f"hydra.run.dir={RUN}"),
    ]


def fork(arguments: list[str]) -> int:
    """Run a command of kd in this folder, in a new process group; return the group's number."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.argv = ["kd", *arguments]
        code = run_kd(*arguments)
    finally:
        os._exit(code)


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed(arguments: list[str], seen: Callable[[], bool], delay: float) -> bool:
    """Start a command and kill it some seconds after a test is true; return False if it had ended before."""
    pid, deadline = fork(arguments), time.monotonic() + PATIENCE
    while not seen():
        if os.waitpid(pid, os.WNOHANG)[0]:
            return False
        if time.monotonic() > deadline:
            os.killpg(pid, signal.SIGKILL)
            wait(pid)
            raise TimeoutError("the phase did not begin")
        time.sleep(0.0005)
    time.sleep(delay)
    if os.waitpid(pid, os.WNOHANG)[0]:
        return False
    os.killpg(pid, signal.SIGKILL)
    wait(pid)
    return True


def timeline(arguments: list[str]) -> dict[str, float]:
    """Return the seconds of each phase of an undisturbed run."""
    times: dict[str, list[float]] = {name: [] for name in PHASES}
    looks = {name: (begin(), end) for name, (begin, end) in PHASES.items()}
    pid = fork(arguments)
    while not os.waitpid(pid, os.WNOHANG)[0]:
        for name, look in looks.items():
            if len(times[name]) < 2 and look[len(times[name])]():
                times[name].append(time.monotonic())
        time.sleep(0.0005)
    ended = time.monotonic()
    found = {name: ([*moments, ended, ended][1] - moments[0]) if moments else 0.0 for name, moments in times.items()}
    return found | {"checkpoint writing": 0.02}  # too short to be measured


def outcome() -> dict[str, object]:
    """Return all results that a kill must not change."""
    run = RunDirectory.finished(RUN)
    figures = {name: value for name, value in run.metrics().items() if name not in TIMES}
    curve = pandas.read_csv(RUN / "metrics.csv")
    (teacher,) = OUTPUTS.glob("teachers/*/model/model.safetensors")
    return {
        "weights": (run.model / "model.safetensors").read_bytes(),
        "predictions": pandas.read_parquet(run.predictions_file).astype(str).to_dict("list"),
        "metrics": figures,
        "validation curve": curve["val/accuracy"].dropna().tolist(),
        "teacher": teacher.read_bytes(),
        "last checkpoint": torch.load(run.checkpoints / "last.ckpt", weights_only=True)["global_step"],
    }


def left_over() -> list[str]:
    """Return the unfinished files that are still there."""
    return [str(path) for pattern in UNFINISHED for path in Path().rglob(pattern) if path.name != "log"]


def trial(arguments: list[str], expected: dict[str, object], begin: Callable, delay: float) -> str | None:
    """Kill one run and repeat it; return None if the kill was survived, otherwise what was wrong."""
    if not killed(arguments, begin(), delay):
        return "ended before it was killed"
    code = wait(fork(arguments))
    if code:
        return f"code {code}: {Path('log').read_text().strip().splitlines()[-1]}"
    found = outcome()
    if apart := [name for name in expected if found[name] != expected[name]]:
        return f"other {', '.join(apart)}"
    if rest := left_over():
        return f"left {', '.join(rest)}"
    return None


def written_report() -> str:
    """Return the report without the time of day."""
    return re.sub(r"at \d\d:\d\d", "", (REPORT / "report.md").read_text())


def report_trial(expected: str, delay: float) -> str | None:
    """Kill the writing of a report and repeat it; return what was wrong, as `trial` does."""
    arguments = ["report", str(RUN), "--out", str(REPORT)]
    if not killed(arguments, lambda: True, delay):
        return "ended before it was killed"
    code = wait(fork(arguments))
    if code:
        return f"code {code}: {Path('log').read_text().strip().splitlines()[-1]}"
    found = written_report()
    if found != expected:
        changed = [line for line in difflib.unified_diff(expected.split("\n"), found.split("\n"), n=0, lineterm="")][2:]
        return f"another report: {changed[:4]}"
    if rest := left_over():
        return f"left {', '.join(rest)}"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--phases", nargs="+", metavar="NAME", help="only these")
    options = parser.parse_args()
    random.seed(options.seed)
    survived, tried, console = Counter(), Counter(), Console()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = [f"{text},{('negative', 'positive')[label]}" for text, label in make_reviews(ROWS)]
        (folder / "reviews.csv").write_text("\n".join(["text,label", *lines]) + "\n")
        make_teacher(folder / "teacher")
        arguments = command(folder)
        os.mkdir(folder / "undisturbed")
        os.chdir(folder / "undisturbed")
        seconds = timeline(arguments)
        expected = outcome()
        start = time.monotonic()
        assert wait(fork(["report", str(RUN), "--out", str(REPORT)])) == 0, Path("log").read_text()
        seconds["report writing"] = time.monotonic() - start
        report = written_report()
        names = options.phases or [*PHASES, "report writing"]
        for number in range(options.kills):
            phase = names[number % len(names)]
            wrong = "ended before it was killed"
            while wrong == "ended before it was killed":  # the moment was after the end: draw another
                delay = random.uniform(0, seconds[phase])
                if phase == "report writing":
                    os.chdir(folder / "undisturbed")
                    wrong = report_trial(report, delay)
                    continue
                place = Path(tempfile.mkdtemp(dir=folder))
                os.chdir(place)
                wrong = trial(arguments, expected, PHASES[phase][0], delay)
            tried[phase] += 1
            survived[phase] += wrong is None
            if wrong:
                console.print(
                    f"kill {number + 1}, {phase}, {delay:.3f} s in: {wrong}",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
        os.chdir("/")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("killed while", "takes s", "kills", "survived"):
        table.add_column(column, justify="left" if column == "killed while" else "right")
    for phase in names:
        table.add_row(phase, f"{seconds[phase]:.2f}", str(tried[phase]), str(survived[phase]))
    table.add_row("all", "", str(tried.total()), str(survived.total()), style="bold")
    console.print(table)
    return int(survived.total() < tried.total())


if __name__ == "__main__":
    sys.exit(main())
