"""``kd <command>``: a command is imported only when it is called."""

from __future__ import annotations

import errno
import importlib
import os
import sys

from kd import __version__
from kd.errors import KDError

COMMANDS = {
    "train": "train a student (or a whole sweep with -m): kd train method=distillation temperature=2 alpha=0.7",
    "report": "finished runs side by side: a table here, and a page with figures, intervals and verdicts",
    "evaluate": "measure a finished run's student on its own splits or on a file",
    "reproduce": "train a finished run again and compare the two bit for bit",
    "predict": "classify texts, a file or standard input with a finished run's student",
    "cache": "label rows before training; list, verify or remove stored teacher outputs",
}


def usage() -> str:
    """What ``kd --help`` prints."""
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:{width}}  {line}" for name, line in COMMANDS.items())
    return (
        "usage: kd [--debug] COMMAND ...\n\nTeach small text classifiers from BERT-like teachers.\n\n"
        f"commands:\n{lines}\n\nkd COMMAND --help tells more. --debug (or KD_DEBUG=1) shows tracebacks."
    )


def main(arguments: list[str] | None = None) -> int:
    """Run a command; a user's mistake gives one sentence and exit code 2."""
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
    if [command, *rest[:1]] == ["cache", "build"]:  # which trains nothing, and yet needs all that training needs
        command, module, rest = "cache build", "cache_build", rest[1:]
    elif command not in COMMANDS:
        print(f"kd: there is no command '{command}'; the commands are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    # Two threads that spin while they wait for each other take 14 times as long as soon as one other process runs on
    # their cores, and 1.6 times where they sleep; on an idle machine sleeping costs 4 % (benchmarks/waiting.py).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported, which is later
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # DDP warns where every parameter is used, which is no fault
    try:
        return importlib.import_module(f"kd.commands.{module}").main(rest) or 0
    except KeyboardInterrupt:
        print(f"kd {command}: interrupted; the same command goes on where it can", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe, such as head, went away: nothing is wrong, and nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        known = isinstance(error, KDError | OSError) or full_disk(error)
        if not known or os.environ.get("KD_DEBUG", "0") not in ("", "0"):
            raise
        print(f"kd {command}: {sentence(error)}", file=sys.stderr)
        return 2


def full_disk(error: BaseException) -> bool:
    """Whether there was no room to write; libraries raise this in their own words."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error)


def sentence(error: Exception) -> str:
    """What a mistake says to the user."""
    if full_disk(error):
        return f"the disk is full ({error}); make room and repeat the command: what is complete is kept"
    if isinstance(error, KDError):
        return str(error)
    place = f" '{error.filename}'" if error.filename else ""
    return f"cannot use the path{place}: {error.strerror or error}; check that it is there and may be written"
