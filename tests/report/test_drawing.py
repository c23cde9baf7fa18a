import pytest

from kd.report.drawing import INK, SERIES, Figure, drawn, inline, wrapped


@pytest.fixture
def figure() -> Figure:
    def draw(axes) -> None:
        axes.plot([0, 1], [0, 1], color=SERIES[0])
        axes.set_xlabel("cost in $ or <b>", color=INK)

    return Figure("line", "Title", 'A "caption" with <b>', ("x", "y"), [(0, 0), (1, 1)], draw)


def test_the_same_data_give_the_same_bytes(figure):
    png, svg = drawn(figure)
    assert (png, svg) == drawn(figure) and png.startswith(b"\x89PNG")
    assert figure.csv() == "x,y\n0,0\n1,1\n"


def test_in_the_page_colours_are_variables_and_ids_are_its_own(figure):
    text = inline(drawn(figure)[1], "1-line", figure.caption)
    assert SERIES[0] not in text and "var(--series-1)" in text and "var(--ink)" in text
    assert 'aria-label="A &quot;caption&quot; with &lt;b>"' in text and "font-family" not in text
    assert 'id="1-line-' in text and 'id="patch_1"' not in text
    assert "cost in $ or &lt;b" in text, "no formula, no markup"


def test_names_are_broken_between_words():
    assert wrapped("distillation alpha=0.5 temperature=4") == "distillation alpha=0.5\ntemperature=4"
