"""``kd experiments [NAME]``: list the studies of ``conf/experiment``, with what was published and what was measured.

Needs no torch.
"""

from __future__ import annotations

import argparse
import difflib
import textwrap
from pathlib import Path

from rich.console import Console
from rich.table import Table

from kd.config.folder import configuration_folder
from kd.errors import KDError

FIELDS = ("study", "paper", "published", "here", "command", "cost", "measured")
"""The fields of the comment on top of a study; each may take several lines."""


def main(arguments: list[str]) -> int:
    """Print all studies, or all that the file of one says."""
    parser = argparse.ArgumentParser(prog="kd experiments", description="List the studies that kd comes with.")
    parser.add_argument("name", nargs="?", help="print the paper, the assumptions, the commands and the figures of one")
    name, console = parser.parse_args(arguments).name, Console(highlight=False, markup=False)
    found = studies()
    if name is None:
        table = Table("experiment", "what it asks", "cost", box=None, pad_edge=False, header_style="bold")
        for each, fields in found.items():
            table.add_row(each, fields["study"][0], "; ".join(fields.get("cost", ())))
        console.print(table)
        console.print("\nkd experiments NAME prints the rest: paper, published and measured figures, commands.")
        return 0
    if name not in found:
        near = difflib.get_close_matches(name, found, 1)
        advice = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(found)}"
        raise KDError(f"expected the name of a study, found '{name}'; {advice}")
    for field in FIELDS:
        for line in found[name].get(field, ["not yet"] if field == "measured" else []):
            whole = f"{field:9}  {line}"  # a command stays on one line, so that it can be copied
            print(whole if field == "command" else textwrap.fill(whole, 80, subsequent_indent=" " * 11))
    return 0


def studies() -> dict[str, dict[str, list[str]]]:
    """Return the fields of every study by its name, sorted."""
    found = {path.stem: comment(path) for path in sorted((configuration_folder() / "experiment").glob("*.yaml"))}
    return {name: fields for name, fields in found.items() if "study" in fields}


def comment(path: Path) -> dict[str, list[str]]:
    """Return the fields of the comment on top of a configuration, each with its lines.

    A line such as ``# cost: 6 runs`` begins a field or adds to it. Other comments are left out.
    """
    fields: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        field, colon, text = line.removeprefix("# ").partition(": ")
        if colon and field in FIELDS:
            fields.setdefault(field, []).append(text)
    return fields
