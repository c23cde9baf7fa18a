"""Write the document as one HTML page and as Markdown, with its tables and figures beside it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from kd.errors import KDError
from kd.report.document import Block, Document
from kd.report.drawing import drawn, inline
from kd.report.tables import code, marked_down
from kd.report.words import plain
from kd.storage.files import built_beside
from kd.storage.locks import lock

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
    with lock(place), built_beside(place) as made:
        (made / MARK).write_text("kd report writes this folder, and replaces it when it runs again.\n")
        pictures = save_parts(document, made)
        (made / "index.html").write_text(html(document, pictures), encoding="utf-8")
        (made / "report.md").write_text(markdown(document), encoding="utf-8")
    return place / "index.html"


def save_parts(document: Document, place: Path) -> dict[str, str]:
    """Write tables and figures into their folders; return the figures for the page, by name."""
    for folder in ("tables", "figures"):
        (place / folder).mkdir()
    parts = [(section.prefix, section.commands, block) for section in document.sections for block in section.blocks]
    pictures = {}
    for prefix, commands, block in [*parts, *(("", (), block) for block in document.closing)]:
        for table in block.tables:
            path = place / "tables" / f"{prefix}{table.name}"
            path.with_suffix(".csv").write_text(table.csv(), encoding="utf-8")
            made_by = [*commands[:MOST_COMMANDS], document.command]
            path.with_suffix(".tex").write_text(table.tex(made_by), encoding="utf-8")
        for figure in block.figures:
            name = f"{prefix}{figure.name}"
            path = place / "figures" / name
            png, svg = drawn(figure)
            path.with_suffix(".png").write_bytes(png)
            path.with_suffix(".svg").write_text(svg, encoding="utf-8")
            path.with_suffix(".csv").write_text(figure.csv(), encoding="utf-8")
            pictures[name] = inline(svg, name, figure.caption)
    return pictures


def html(document: Document, pictures: dict[str, str]) -> str:
    """Write the page, which contains its styles, script and figures and loads nothing."""
    from jinja2 import Environment, FunctionLoader

    read = lambda name: files("kd.report").joinpath(name).read_text(encoding="utf-8")  # noqa: E731
    environment = Environment(loader=FunctionLoader(read), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("page.html.j2").render(
        document=document, pictures=pictures, most_commands=MOST_COMMANDS, css=read("page.css"), js=read("page.js")
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
        unknown = "The runs have no record of the commands that made them."
        lines.append(f"Made by:\n\n```\n{made_by}\n```" if made_by else unknown)
        for block in section.blocks:
            lines += block_lines(block, section.prefix, section.commands)
    for block in document.closing:
        lines += block_lines(block, "", ())
    lines.append(f"Written by {code(document.command)}.")
    return "\n\n".join(lines) + "\n"


def block_lines(block: Block, prefix: str, commands: Sequence[str]) -> list[str]:
    """Write a block as Markdown."""
    lines = [f"## {marked_down(block.title)}", *map(marked_down, block.text)]
    for figure in block.figures:
        title, caption = marked_down(figure.title), marked_down(figure.caption)
        lines.append(f"![{title}](figures/{prefix}{figure.name}.png)\n\n{title}. {caption}")
    for table in block.tables:
        if len(block.tables) > 1 or table.title != block.title:
            lines.append(f"### {marked_down(table.title)}")
        lines.append(table.markdown().rstrip())
        if commands:
            several = f"Made by the {len(commands)} commands above."
            lines.append(f"Made by {code(commands[0])}." if len(commands) == 1 else several)
    return lines
