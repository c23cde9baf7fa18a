"""Write the document as one HTML page and as Markdown, with its tables and figures beside it."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from kd.errors import KDError
from kd.report.document import Document
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
    refuse_other(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    with lock(place), built_beside(place) as made:
        (made / MARK).write_text("kd report writes this folder, and replaces it when it runs again.\n")
        pictures = save_parts(document, made)
        (made / "index.html").write_text(filled("page.html.j2", document, pictures), encoding="utf-8")
        (made / "report.md").write_text(filled("report.md.j2", document, pictures), encoding="utf-8")
    return place / "index.html"


def refuse_other(place: Path) -> None:
    """Refuse a folder that holds something else than a report, and one that cannot be written.

    Raises:
        KDError: it is one of these.
    """
    if place.exists() and not (place / MARK).is_file() and (not place.is_dir() or any(place.iterdir())):
        raise KDError(
            f"expected an empty folder or an earlier report at '{place}', found something else; give another --out"
        )
    there = next(each for each in (place, *place.absolute().parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise KDError(f"expected a folder that can be written for '{place}', found '{there}'; give another --out")


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


def filled(template: str, document: Document, pictures: dict[str, str]) -> str:
    """Fill a template with the document; the HTML page contains its styles, script and figures, and loads nothing."""
    from jinja2 import Environment, FunctionLoader

    read = lambda name: files("kd.report").joinpath(name).read_text(encoding="utf-8")  # noqa: E731
    escape = template.endswith(".html.j2")
    environment = Environment(loader=FunctionLoader(read), autoescape=escape, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"md": marked_down, "code": code, "plain": plain}
    return environment.get_template(template).render(
        document=document, pictures=pictures, most_commands=MOST_COMMANDS, css=read("page.css"), js=read("page.js")
    )
