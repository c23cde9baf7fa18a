"""``kd init [DIR]``: write a folder to begin with: an experiment of one's own and a small data file. Needs no torch."""

from __future__ import annotations

import argparse
import csv
import io
import shlex
from pathlib import Path

from kd.errors import KDError
from kd.storage.files import write_text

TOPICS = {
    "billing": (
        *("the invoice of this month is too high", "you charged my card twice", "my refund has not arrived yet"),
        *("I need a receipt for the last payment", "the discount code was not applied to my bill"),
        *("the price of the plan has changed", "I was charged after I cancelled", "the tax on the invoice is wrong"),
    ),
    "account": (
        *("I cannot remember my password", "please delete my profile", "I want to change my email address"),
        *("the login page says my user name is unknown", "how do I add a second user to my team"),
        *("my profile shows the name of someone else", "I am locked out after three logins"),
        *("the code to confirm my login never comes",),
    ),
    "technical": (
        *("the app crashes when I open a file", "the page loads very slowly", "the export button does nothing"),
        *("I see an error after the last update", "the printer is not found", "the video stops after a minute"),
        *("the search finds no results at all", "the program freezes when I save"),
    ),
}
FRAMES = (
    *("{}", "hello, {}", "{}, please help", "since yesterday {}", "I think {}", "{}, what can I do?", "sorry, but {}"),
    *("{} and it is urgent", "again {}", "for the third time: {}", "{}, thank you", "good morning, {}"),
)

EXPERIMENT = """\
# @package _global_
# An experiment of your own: what differs from the defaults of kd. Every key can also be set on the command line.
#   kd train --config-dir conf experiment=mine
# kd train --help lists the choices of each group, and `kd data inspect FILE` how a file of yours is read.
defaults:
  - override /data: files
  - override /student: textcnn

data:
  name: messages
  path: messages.csv            # your own file: CSV, TSV, JSON, Parquet
  text: message                 # names of its columns
  label: topic
  label_names: [{names}]
  batch_size: 16

teacher:
  epochs: 4                     # few rows need more epochs than the default

trainer:
  max_epochs: 20
alpha: 0.9                      # share of what the teacher says; the rest are the labels
temperature: 4
"""

README = """\
`conf/experiment/mine.yaml` says what is trained; edit it. `messages.csv` only shows the form of a data file: its rows
are so alike that every student is right on nearly all of them. Put your own rows in its place.

```
{commands}
```
"""

RUN = "outputs/mine/distillation"
COMMANDS = (
    ("how the file is read", "kd data inspect messages.csv --text message --label topic"),
    ("a student that learns from a teacher", f"kd train --config-dir conf experiment=mine hydra.run.dir={RUN}"),
    (
        "a bag of bigrams to compare with",
        "kd train --config-dir conf experiment=mine student=bag method=supervised hydra.run.dir=outputs/mine/bag",
    ),
    ("both side by side", "kd report outputs/mine"),
    ("use the student", f'kd predict {RUN} "I was charged twice"'),
)


def main(arguments: list[str]) -> int:
    """Write the files, and print the commands that use them."""
    parser = argparse.ArgumentParser(
        prog="kd init",
        description="Write an experiment of your own and a small data file, and print what to type next.",
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="DIR", help="default: this folder")
    place = parser.parse_args(arguments).folder
    steps = [f"# {meaning}\n{command}" for meaning, command in COMMANDS]
    listing = "\n".join(steps)
    files = {
        "messages.csv": messages(),
        "conf/experiment/mine.yaml": EXPERIMENT.format(names=", ".join(TOPICS)),
        "README.md": README.format(commands=listing),
    }
    for name in files:
        if (place / name).exists():
            raise KDError(f"expected no '{place / name}', found one; give an empty folder, as in kd init mine")
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        write_text(place / name, content)
    print(f"wrote {', '.join(str(place / name) for name in files)}. Next:\n")
    if place != Path():
        print(f"cd {shlex.quote(str(place))}")
    print(listing)
    return 0


def messages() -> str:
    """Return rows of messages to a help desk, each with its topic, as CSV."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["message", "topic"])
    for frame in FRAMES:
        rows.writerows([frame.format(problem), topic] for topic, problems in TOPICS.items() for problem in problems)
    return text.getvalue()
