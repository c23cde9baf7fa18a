"""The page of an explanation, from a record."""

import copy

from kd.explanation import page
from kd.report.page import write
from tests.storage.test_explanation_record import CONTENT, DATA, ESTIMATE, TEXT


def written(record, tmp_path):
    index = write(page.document(record, "runs/mine"), tmp_path / "page")
    return index.read_text(), (index.parent / "report.md").read_text()


def test_both_parts_are_on_the_page_with_their_files(tmp_path):
    html, markdown = written(CONTENT, tmp_path)
    assert "Explanation of runs/mine" in html and "student: run; teacher: t" in html
    assert "Completeness: the influences add up to +2.100, the log-odds change by +2.200." in markdown
    assert "a &lt;b&gt;good&lt;/b&gt; plot" in html and "none: transfer set" in html
    assert "1 of 30 words are shown. About 2 would be by chance." in markdown
    assert "largest gap" in html
    names = {path.name for path in (tmp_path / "page").rglob("*.csv")}
    assert {"data-deletion-curves.csv", "data-correlations.csv", "data-words-teacher.csv", "texts-text-1.csv"} <= names
    assert "student" in (tmp_path / "page/figures/data-deletion-curves.csv").read_text()


def test_one_part_alone_and_a_student_alone(tmp_path):
    alone = copy.deepcopy(CONTENT) | {"texts": None}
    alone["data"] |= {"names": ["student"], "paths": ["run"], "method": "occlusion", "pairs": [], "words": []}
    alone["data"]["models"] = alone["data"]["models"][:1]
    html, _ = written(alone, tmp_path)
    assert "Deletion curves" in html and "Rank correlation" not in html and "largest gap" not in html
    html, _ = written({**CONTENT, "data": None}, tmp_path)
    assert "Deletion curves" not in html and "Influence of each word" in html


def test_the_gain_is_a_sentence_with_its_verdict():
    names = ["student", "teacher", "other"]
    for bounds, verdict in (
        ([0.1, 0.2], "the student reads more like the teacher"),
        ([-0.2, -0.1], "the student reads less like the teacher"),
        ([-0.1, 0.1], "not decided"),
    ):
        (line,) = page.gain({**DATA, "names": names, "gain": {**ESTIMATE, "interval": bounds}})
        assert line.endswith(f"): {verdict}.") and "student minus other" in line


def test_of_a_long_text_the_most_influential_words_are_shown_in_their_order():
    values = [0.01] * 40
    values[30], values[2] = -5.0, 3.0
    other = [0.0] * 40
    other[35] = 0.001  # the largest of a model that is less sure
    row = {**TEXT, "models": [{**TEXT["models"][0], "values": values}, {**TEXT["models"][1], "values": other}]}
    shown = page.most_influential(row)
    assert len(shown) == page.MOST_WORDS and {2, 30, 35} <= set(shown) and shown == sorted(shown)
