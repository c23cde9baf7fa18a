"""Print the options with what is expected of each: for ``kd train --help``, and for ``docs/options.md`` by

python -m kd.config.reference > docs/options.md
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from kd.config.compose import composed
from kd.config.declarations import declarations
from kd.config.folder import LISTS, configuration_folder
from kd.options.declared import options_of, written
from kd.options.sections import SECTIONS
from kd.run.identity import flat

OLD_NAME = "feature_mapping"
"""The file of ``conf/method/`` that keeps an old spelling working; nothing lists it."""

HEAD = """# Options

Made by `python -m kd.config.reference > docs/options.md` from the declarations in the code. Each group below is a
folder of `conf/`, each choice a file in it: `kd train student=dan student.dropout=0.2`. An option that begins with `+`
is in no file; write the `+` to add it. Several losses, callbacks or loggers are a list: `loss=[soft_target,hint]`.
"""

COLUMNS = "| {} | option | default | expected | meaning |\n|---|---|---|---|---|"


@dataclass(frozen=True)
class Line:
    """One option with its value in a configuration.

    Args:
        key: as it is set on the command line.
        default: its value, as YAML writes it; empty if no file sets the option.
        expected: its type and range in words.
        meaning: what it does; empty if the library that takes it does not say.
    """

    key: str
    default: str
    expected: str
    meaning: str

    def row(self, choice: str) -> str:
        """Return the option as a row of a Markdown table."""
        default = f"`{self.default}`" if self.default else ""
        return f"| {choice} | `{self.key}` | {default} | {self.expected} | {self.meaning} |".replace("|  |", "| |")


def lines(config: DictConfig) -> Iterator[Line]:
    """List the options of a composed configuration."""
    seen = set()
    for declaration in declarations(config):
        node = declaration.node(config)
        raw: Any = OmegaConf.to_container(node)
        ours = options_of(SECTIONS[declaration.place]) if declaration.place in SECTIONS else {}
        for name, option in declaration.options.items():
            key, added = declaration.key(name), name not in node
            if key in seen or (added and name not in ours):  # of a library, only what a file sets
                continue
            seen.add(key)
            value = raw.get(name)
            default = "" if added else "..." if isinstance(value, dict) and value else written(value)
            yield Line("+" * added + key, default, option.expected, option.meaning)


def help_text(config: DictConfig, width: int = 80) -> str:
    """Return the options of a configuration for a terminal, one after the other."""
    indent: dict[str, Any] = {"initial_indent": "      ", "subsequent_indent": "      "}
    found = []
    for line in lines(config):
        text = f"{line.meaning} Expected: {line.expected}.".lstrip()
        found.append(f"  {line.key}{'=' if line.default else ''}{line.default}")
        found.append(textwrap.fill(text[0].upper() + text[1:], width, break_on_hyphens=False, **indent))
    return "\n".join(found)


def groups_text(width: int = 80) -> str:
    """Return the groups and their choices for a terminal."""
    return "\n".join(
        textwrap.fill(f"{group}: {', '.join(names)}", width, initial_indent="  ", subsequent_indent="      ")
        for group, names in groups().items()
    )


def groups() -> dict[str, list[str]]:
    """List the choices of each group: the files of each folder of ``conf/``."""
    folder = configuration_folder()
    found: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*.yaml")):
        group = path.parent.relative_to(folder).as_posix()
        if group != "." and not group.startswith("hydra") and path.stem != OLD_NAME:
            found.setdefault(group, []).append(path.stem)
    return found


def page() -> str:
    """Return ``docs/options.md``."""
    base, folder = composed([]), configuration_folder()
    own = dict(flat({key: value or {} for key, value in yaml.safe_load((folder / "config.yaml").read_text()).items()}))
    parts = [HEAD, "## conf/config.yaml\n", COLUMNS.format("key")]
    parts += [line.row("") for line in lines(base) if line.key in own and line.key not in LISTS]
    for group, choices in groups().items():
        if group != "experiment":
            parts += ["", f"## {group}\n", COLUMNS.format("choice")]
            for choice in choices:
                found = [line.row(choice) for line in _of_choice(base, group, choice)]
                parts += found or [f"| {choice} | | | | |"]
    return "\n".join([*parts, ""])


def _of_choice(base: DictConfig, group: str, choice: str) -> list[Line]:
    """List the options that a file of ``conf/`` sets, and those that its section adds."""
    text = (configuration_folder() / group / f"{choice}.yaml").read_text()
    content = yaml.safe_load(text) or {}
    content.pop("defaults", None)
    place = "" if text.startswith("# @package _global_") else group.replace("/", ".")
    config = base.copy()
    OmegaConf.set_struct(config, False)
    OmegaConf.update(config, "student.name_or_path", "NAME")  # which tokenizer=pretrained takes from student=hf
    for key, value in content.items():
        OmegaConf.update(config, f"{place}.{key}".lstrip("."), value, merge=True)
    own = {f"{place}.{key}".lstrip(".") for key, _ in flat(content)}
    first = choice == "default"
    return [line for line in lines(config) if line.key in own or (first and line.key.startswith(f"+{place}."))]


if __name__ == "__main__":
    print(page(), end="")
