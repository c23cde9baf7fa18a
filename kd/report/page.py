"""Write the document as one HTML page and as Markdown, with its tables and figures beside it."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from kd.errors import KDError
from kd.report.document import Block, Document, Section
from kd.report.drawing import drawn, inline
from kd.report.tables import code, marked_down
from kd.report.words import plain
from kd.storage.locks import mark

MARK = ".kd-report"
MOST_COMMANDS = 30


def write(document: Document, place: Path) -> Path:
    """Write everything into a folder, whole or not at all, in place of an earlier report; return ``index.html``.

    Raises:
        KDError: the folder holds something else.
    """
    place = place.resolve()
    if place.exists() and not (place / MARK).is_file() and (not place.is_dir() or any(place.iterdir())):
        raise KDError(
            f"expected an empty folder or an earlier report at '{place}', found something else; give another --out"
        )
    place.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(place)
    aside = place.with_name(f".{place.name}.{mark()}")
    made = aside / "new"
    try:
        for folder in ("tables", "figures"):
            (made / folder).mkdir(parents=True)
        (made / MARK).write_text("kd report writes this folder, and replaces it when it runs again.\n")
        pictures = save_parts(document, made)
        (made / "index.html").write_text(html(document, pictures), encoding="utf-8")
        (made / "report.md").write_text(markdown(document), encoding="utf-8")
        if place.exists():  # moved first: half removed, it would no longer be recognised as a report
            place.rename(aside / "old")
        made.rename(place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return place / "index.html"


def remove_abandoned(place: Path) -> None:
    """Remove what killed processes of this machine left half-written; running processes keep their folders."""
    mine, own = f".{place.name}.{mark()}", str(os.getpid())
    for folder in place.parent.glob(f"{glob.escape(mine.removesuffix(own))}*"):
        number = folder.name.removeprefix(mine.removesuffix(own))
        if number.isdigit() and (number == own or not alive(int(number))):
            shutil.rmtree(folder, ignore_errors=True)


def alive(pid: int) -> bool:
    """Whether a process of this machine is running, also another user's."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def blocks(document: Document) -> Iterable[tuple[str, Section | None, Block]]:
    """Yield every block with the prefix of its files and its section."""
    for section in document.sections:
        for block in section.blocks:
            yield section.prefix, section, block
    for block in document.closing:
        yield "", None, block


def save_parts(document: Document, place: Path) -> dict[str, str]:
    """Write tables and figures into their folders; return the figures for the page, by name."""
    pictures = {}
    for prefix, section, block in blocks(document):
        made_by = [*(section.commands[:MOST_COMMANDS] if section else ()), document.command]
        for table in block.tables:
            path = place / "tables" / f"{prefix}{table.name}"
            path.with_suffix(".csv").write_text(table.csv(), encoding="utf-8")
            path.with_suffix(".tex").write_text(table.tex(made_by), encoding="utf-8")
        for figure in block.figures:
            path = place / "figures" / f"{prefix}{figure.name}"
            png, svg = drawn(figure)
            path.with_suffix(".png").write_bytes(png)
            path.with_suffix(".svg").write_text(svg, encoding="utf-8")
            path.with_suffix(".csv").write_text(figure.csv(), encoding="utf-8")
            pictures[f"{prefix}{figure.name}"] = inline(svg, f"{prefix}{figure.name}", figure.caption)
    return pictures


def html(document: Document, pictures: dict[str, str]) -> str:
    """Write the page, which contains its styles, script and figures and loads nothing."""
    from jinja2 import Environment, FunctionLoader

    folder = files("kd.report")
    environment = Environment(
        loader=FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    parts = {name: (folder / f"page.{name}").read_text(encoding="utf-8") for name in ("css", "js")}
    return environment.get_template("page.html.j2").render(
        document=document, pictures=pictures, most_commands=MOST_COMMANDS, **parts
    )


def markdown(document: Document) -> str:
    """Write the page as Markdown, with links to the figures' files."""
    lines = [f"# {marked_down(document.title)}", marked_down(document.subtitle)]
    lines += [f"> {marked_down(warning)}" for warning in document.warnings]
    for section in document.sections:
        if len(document.sections) > 1:
            lines.append(f"## {marked_down(section.title)}")
        lines += map(marked_down, section.summary)
        made_by = "\n".join(map(plain, section.commands[:MOST_COMMANDS]))
        lines.append(
            f"Made by:\n\n```\n{made_by}\n```" if made_by else "The runs have no record of the commands that made them."
        )
        for block in section.blocks:
            lines += block_lines(block, section.prefix, section.commands)
    for block in document.closing:
        lines += block_lines(block, "", ())
    lines.append(f"Written by {code(document.command)}.")
    return "\n\n".join(lines) + "\n"


def block_lines(block: Block, prefix: str, made_by: Iterable[str]) -> list[str]:
    """Write a block as Markdown."""
    lines = [f"## {marked_down(block.title)}", *map(marked_down, block.text)]
    for figure in block.figures:
        title, caption = marked_down(figure.title), marked_down(figure.caption)
        lines.append(f"![{title}](figures/{prefix}{figure.name}.png)\n\n{title}. {caption}")
    for table in block.tables:
        heading = [f"### {marked_down(table.title)}"] if len(block.tables) > 1 or table.title != block.title else []
        lines += [*heading, table.markdown().rstrip(), *made(list(made_by))]
    return lines


def made(commands: list[str]) -> list[str]:
    """Write the line under a table that names its commands."""
    if not commands:
        return []
    return [f"Made by {code(commands[0])}." if len(commands) == 1 else f"Made by the {len(commands)} commands above."]
