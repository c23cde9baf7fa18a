"""The reference of the options, as a page and for the terminal."""

from omegaconf import OmegaConf

from kd.config.compose import composed
from kd.config.folder import configuration_folder
from kd.config.reference import Line, groups, groups_text, help_text, lines, page

ROOT = configuration_folder().parent


def test_the_reference_is_what_the_declarations_say():
    assert (ROOT / "docs" / "options.md").read_text() == page(), (
        "make it anew: python -m kd.config.reference > docs/options.md"
    )


def test_every_key_of_the_configuration_is_declared():
    """But for names of groups, whose content declares itself."""
    config = composed([])
    known = {line.key for line in lines(config)} | {"choices"}
    for key in config:
        section = OmegaConf.is_dict(config[key]) and key not in ("peers", "loss", "transfer", "callbacks", "logger")
        assert key in known or section, f"{key}: declare it in kd/options/sections.py"


def test_the_groups_are_the_folders():
    assert groups()["method"] == ["composition", "distillation", "hints", "joint", "supervised"]


def test_the_help_fits_a_terminal():
    text = help_text(composed(["student=dan"]))
    assert "  student.hidden_size=" in text and "Expected: a whole number of at least 1." in text
    assert max(map(len, groups_text().splitlines())) <= 80


def test_a_line_is_a_row_of_a_table():
    assert Line("a.b", "2", "a number", "of rows.").row("dan") == "| dan | `a.b` | `2` | a number | of rows. |"
    assert Line("+a.b", "", "a number", "").row("") == "| | `+a.b` | | a number | |"
