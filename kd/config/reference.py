"""Print what every option may be, from the declarations: ``kd train --help``, and ``docs/options.md`` by

python -m kd.config.reference > docs/options.md
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from kd.config.compose import composed
from kd.config.declarations import declarations
from kd.config.folder import configuration_folder
from kd.options.declared import written
from kd.run.identity import flat

LISTS = ("loss", "callbacks", "logger")
"""Groups of which a run takes several choices."""

HEAD = """# Options

Made by `python -m kd.config.reference > docs/options.md` from the declarations in the code. Each group below is a
folder of `conf/`, each choice a file in it: `kd train student=dan student.dropout=0.2`. An option that begins with `+`
stands in no file and is added. Several losses, callbacks or loggers are a list: `loss=[soft_target,hint]`.
"""

COLUMNS = "| {} | option | default | expected | meaning |\n|---|---|---|---|---|"


@dataclass(frozen=True)
class Line:
    """One option with its value in a configuration.

    Args:
        key: as it is set on the command line.
        default: its value, as YAML writes it.
        expected: its type and range in words.
        meaning: what it does; empty where another library declares it.
    """

    key: str
    default: str
    expected: str
    meaning: str


def lines(config: DictConfig) -> Iterator[Line]:
    """List the options of a composed configuration."""
    seen = set()
    for declaration in declarations(config):
        node = declaration.node(config)
        for name, option in declaration.options.items():
            key, added = declaration.key(name), name not in node
            if key in seen or (added and not declaration.from_section(name)):
                continue
            seen.add(key)
            yield Line("+" * added + key, "" if added else _default(node, name), option.expected, option.meaning)


def _default(node: DictConfig, name: str) -> str:
    value = OmegaConf.to_container(node, resolve=False)[name]
    return "..." if isinstance(value, dict) and value else written(value)


def help_text(config: DictConfig, width: int = 80) -> str:
    """Return the options of a configuration for a terminal, one after the other."""
    indent = {"initial_indent": "      ", "subsequent_indent": "      "}
    found = []
    for line in lines(config):
        head = f"  {line.key}{'=' if line.default else ''}{line.default}"
        text = f"{line.meaning} Expected: {line.expected}." if line.meaning else f"Expected: {line.expected}."
        found += [head, textwrap.fill(text[0].upper() + text[1:], width, break_on_hyphens=False, **indent)]
    return "\n".join(found)


def groups_text(width: int = 80) -> str:
    """Return the groups and their choices for a terminal."""
    return "\n".join(
        textwrap.fill(f"{group}: {', '.join(names)}", width, initial_indent="  ", subsequent_indent="      ")
        for group, names in groups().items()
    )


def groups() -> dict[str, list[str]]:
    """List the choices of each group, as the folders and files of ``conf/``."""
    folder, found = configuration_folder(), {}
    for path in sorted(folder.rglob("*.yaml")):
        group = path.parent.relative_to(folder).as_posix()
        if group != "." and not group.startswith("hydra"):
            found.setdefault(group, []).append(path.stem)
    return found


def page() -> str:
    """Return ``docs/options.md``."""
    base = composed([])
    top = [line for line in lines(base) if _of_the_top(line.key)]
    parts = [HEAD, "## conf/config.yaml\n", COLUMNS.format("key"), *_rows("", top), ""]
    for group, choices in groups().items():
        if group == "experiment":
            continue
        parts += [f"## {group}\n", COLUMNS.format("choice")]
        for choice in choices:
            if (group, choice) != ("method", "feature_mapping"):
                parts += _rows(choice, _of_choice(base, group, choice)) or [f"| {choice} | | | | |"]
        parts.append("")
    return "\n".join(parts)


def _of_the_top(key: str) -> bool:
    """Whether a key stands in ``conf/config.yaml`` and not in a file of a group."""
    own = yaml.safe_load((configuration_folder() / "config.yaml").read_text())
    first, _, rest = key.partition(".")
    return first in own and (not rest or rest in (own[first] or {})) and first not in LISTS


def _of_choice(base: DictConfig, group: str, choice: str) -> list[Line]:
    """List the options that a file of ``conf/`` sets, and those that its section adds."""
    path = configuration_folder() / group / f"{choice}.yaml"
    node = OmegaConf.load(path)
    node.pop("defaults", None)
    place = "" if path.read_text().startswith("# @package _global_") else group.replace("/", ".")
    config = base.copy()
    OmegaConf.set_struct(config, False)
    OmegaConf.update(config, "student.name_or_path", "NAME")  # which tokenizer=pretrained takes from student=hf
    content = OmegaConf.to_container(node, resolve=False)
    for key, value in content.items():
        OmegaConf.update(config, f"{place}.{key}".lstrip("."), value, merge=True)
    own = {f"{place}.{key}".lstrip(".") for key, _ in flat(content)}
    first = choice == "default"
    return [line for line in lines(config) if line.key in own or (first and line.key.startswith(f"+{place}."))]


def _rows(choice: str, found: Iterable[Line]) -> list[str]:
    return [
        f"| {choice} | `{line.key}` | {_code(line.default)} | {line.expected} | {line.meaning} |".replace("|  |", "| |")
        for line in found
    ]


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


if __name__ == "__main__":
    print(page(), end="")
