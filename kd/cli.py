"""``kd <command>``: the command line. Each command is imported only when it is called."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import textwrap

from kd import __version__
from kd.errors import KDError

COMMANDS = {
    "init": "write a folder with an experiment of your own, a data file, and what to type",
    "advise": "choose what to try for data, teacher and limits, and measure what it costs",
    "auto": "train what kd advise chooses within a time, by successive halving",
    "train": "train a student (or a whole sweep with -m): kd train method=distillation temperature=2 alpha=0.7",
    "experiments": "list the studies of papers that kd comes with: commands, published and measured figures",
    "report": "compare finished runs: a table, and a page with figures, intervals and verdicts",
    "evaluate": "measure a classifier on its splits and files, in parts of them, on changed texts",
    "reproduce": "train a finished run again and compare both runs bit for bit",
    "predict": "classify texts, a file or standard input with a finished run's student",
    "benchmark": "measure size, speed and accuracy of runs and their teacher on this machine",
    "export": "write a student as ONNX, in 8 or 16 bits, as a page for browsers; checked",
    "push": "upload a student with its model card to the Hugging Face Hub, after asking",
    "serve": "classify texts over HTTP with a finished run's student or an export",
    "cascade": "let a student answer where it is sure, and its teacher where it is not",
    "explain": "show which words made a student answer so, beside its teacher",
    "audit": "measure differences between groups of people, and what transfer changed",
    "compare": "compare a student with its teacher: do they fit, and where do they differ",
    "data": "inspect a file or folder: how it is read, classes, rows left out, lengths",
    "cache": "label rows before training; list, verify or remove stored teacher outputs",
    "completion": "print a script that completes commands and options with Tab, for bash or zsh",
}


def usage() -> str:
    """Return the text of ``kd --help``."""
    width = max(map(len, COMMANDS))
    indent = " " * (width + 4)
    lines = "\n".join(
        textwrap.fill(f"  {name:{width}}  {line}", 80, subsequent_indent=indent, break_on_hyphens=False)
        for name, line in COMMANDS.items()
    )
    return (
        "usage: kd [--debug] COMMAND ...\n\nTeach small text classifiers from BERT-like teachers.\n\n"
        f"commands:\n{lines}\n\nkd COMMAND --help shows its options. --debug (or KD_DEBUG=1) shows tracebacks."
    )


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code; a user's mistake prints one sentence and gives 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if "--debug" in options:
        arguments.remove("--debug")
        os.environ["KD_DEBUG"] = "1"
    command, *rest = arguments or ["--help"]
    module = command
    if command in ("-h", "--help", "help"):
        print(usage())
        return 0
    if command == "--version":
        print(f"kd {__version__}")
        return 0
    if [command, *rest[:1]] == ["cache", "build"]:  # apart from the other actions, which need no torch
        command, module, rest = "cache build", "cache_build", rest[1:]
    elif command not in COMMANDS:
        print(f"kd: there is no command '{command}'; the commands are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    # By default, waiting threads spin. Beside one other process two threads then take 14 times as long, but 1.6 times
    # if they sleep. On an idle machine sleeping costs 4 % (benchmarks/waiting.py).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch reads it when it is imported, which is later
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # DDP warns if every parameter is used, which is no fault
    try:
        return importlib.import_module(f"kd.commands.{module}").main(rest) or 0
    except KeyboardInterrupt:
        print(f"kd {command}: interrupted; repeat the command to resume", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe, such as head, has ended: this is no error, and nothing more can be printed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        known = isinstance(error, KDError | OSError) or full_disk(error)
        if not known or os.environ.get("KD_DEBUG", "0") not in ("", "0"):
            raise
        print(f"kd {command}: {sentence(error)}", file=sys.stderr)
        return 2


def full_disk(error: BaseException) -> bool:
    """Return whether the disk was full; libraries raise errors of their own for this."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error)


def sentence(error: Exception) -> str:
    """Return the sentence that is printed for an error."""
    if full_disk(error):
        return f"the disk is full ({error}); free some space and repeat the command: complete files are kept"
    if isinstance(error, KDError):  # it may quote a stranger's file
        return "".join(mark if mark.isprintable() or mark == "\n" else repr(mark)[1:-1] for mark in str(error))
    name, reason = getattr(error, "filename", None), getattr(error, "strerror", None) or error  # those of an OSError
    place = f" '{name}'" if name else ""
    return f"cannot use the path{place}: {reason}; check that it exists and is writable"
