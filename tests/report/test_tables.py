import pytest

from kd.report.tables import EMPTY, Cell, Table, code, marked_down, number, percent, points, tex


@pytest.fixture
def table() -> Table:
    rows = [[Cell("a|b"), percent(0.5), Cell("[0.1, 0.2]", (0.1, 0.2))], [Cell("[c"), EMPTY, EMPTY]]
    return Table("name", "Title", ["model", "test", "interval"], rows, ["50 % <b>"])


def test_csv_has_unrounded_numbers_and_both_bounds(table):
    assert table.csv().splitlines() == ["model,test,interval low,interval high", "a|b,0.5,0.1,0.2", "[c,,,"]


def test_markdown_escapes_what_would_be_markup(table):
    lines = table.markdown().splitlines()
    assert lines[1] == "| --- | ---: | ---: |" and lines[2] == "| a\\|b | 50.0 | [0.1, 0.2] |"
    assert lines[-1] == "50 % &lt;b>" and marked_down("[a](b)") == "[a]\\(b)" and code("a`b") == "`a'b`"


def test_latex_needs_no_other_package(table):
    text = table.tex(["kd report x\ny"])
    assert text.startswith("% \\usepackage{booktabs}\n% kd report x y\n\\begin{tabular}{lrr}")
    assert "{}[c &  &  \\\\" in text, "a bracket after a line end would be its option"
    assert tex("±5_%~") == "$\\pm$5\\_\\%\\textasciitilde{}"


def test_cells():
    assert percent(-0.05).text == "−5.0" and points(0.012).text == "+1.2" and number(1234.5, 1).text == "1,234.5"
    assert percent(None) == points(None) == number(None) == EMPTY
    assert Cell("x", (1.0, 2.0)).order == 1.0 and Cell("x").order is None
