"""An audit as tables, a figure, a sentence and a page."""

from kd.audit.page import document, figure, sentence, tables
from kd.report.drawing import drawn
from kd.report.page import write
from tests.storage.test_audit_record import COMPARISON, CONTENT, EFFECT

SMALL = {**EFFECT, "difference": 0.004, "low": -0.01, "high": 0.02, "p": 0.6}
RATE = {**COMPARISON, "measure": "false positives", "biases": {"student": SMALL, "alone": EFFECT}}
SIZE = {**COMPARISON, "measure": "size", "verdicts": {"alone": "reduced"}}
BOTH = {**CONTENT, "comparisons": [COMPARISON, SIZE, RATE]}


def test_the_sentence_counts_what_is_at_least_the_limit():
    assert sentence(BOTH) == (
        "Audited for bias on 5,632 texts (templates) by the probability of positive: 1 of 2 comparisons of groups "
        "is decided (p < 0.05, and a difference of at least 0.01), the largest −0.100 for female − male "
        "(−0.200 to −0.050); against the "
        "student alone: kept 2, size of single differences reduced 1; 25.0 % of 4 validation texts change their label "
        "when words for women and men are exchanged. This is no proof that there is no other bias."
    )
    few = sentence({**BOTH, "least": 0.2, "flips": None, "models": {"student": "."}})
    assert "0 of 2 comparisons of groups are decided (p < 0.05, and a difference of at least 0.2). This is no" in few


def test_tables_and_figure():
    biases, changes, sizes, flips = tables(BOTH)
    assert [row[-1].text for row in sizes.rows] == ["reduced"] and biases.rows[0][-1].value == -0.1
    assert [row[0].text for row in biases.rows] == 2 * ["female − male"] + 2 * ["female − male, false positives"]
    assert biases.rows[0][3].value == (-0.2, -0.05) and [row[-1].text for row in changes.rows] == ["kept", "kept"]
    assert "4 of 9 texts of validation" in flips.notes[0]
    assert len(tables({**CONTENT, "comparisons": [{**COMPARISON, "changes": {}}], "flips": None})) == 1
    made = figure(BOTH)
    assert len(made.rows) == 4 and "positives" in drawn(made)[1]


def test_the_page_has_all_parts(tmp_path):
    examples = {**CONTENT["flips"], "examples": [["she <b> is", "he <b> is", "positive", "negative"]]}
    page = write(document({**BOTH, "flips": examples}, "textcnn", ["RUN"]), tmp_path / "audit").read_text()
    for part in (
        "Audit of textcnn",
        "kept 2",
        "no complete list",
        "What transfer changed",
        "Labels that flip",
        "she &lt;b&gt; is",
        "kd audit RUN",
    ):
        assert part in page
    assert (tmp_path / "audit" / "tables" / "changes.csv").is_file() and (tmp_path / "audit" / "report.md").is_file()
