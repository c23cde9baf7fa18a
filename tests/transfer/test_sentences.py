"""Documents cut into sentences."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kd.transfer.sentences import sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I liked it. She did not.", ["I liked it.", "She did not."]),
        ("Dr. No met Mr. Bond at 5 p.m. yesterday. Fine.", ["Dr. No met Mr. Bond at 5 p.m. yesterday.", "Fine."]),
        ("It cost $4.50 in the U.S. market. Cheap!", ["It cost $4.50 in the U.S. market.", "Cheap!"]),
        ("J. R. R. Tolkien wrote it. I read it.", ["J. R. R. Tolkien wrote it.", "I read it."]),
        ("So did I. And you?", ["So did I.", "And you?"]),
        ('"Why?" he asked. "Because!" No more.', ['"Why?" he asked.', '"Because!"', "No more."]),
        ("great movie! i loved it", ["great movie!", "i loved it"]),
        ("it is good . but it is long .", ["it is good .", "but it is long ."]),
        ("Well... it drags. Wait... What?", ["Well... it drags.", "Wait...", "What?"]),
        ("One<br /><br />two<p>three</p> <b>four</b> &amp; five", ["One", "two", "three", "four & five"]),
        ("First line\ngoes on.\n\nNext", ["First line goes on.", "Next"]),
        ("服务很好！房间也干净。“不错。”下次还来", ["服务很好！", "房间也干净。", "“不错。”", "下次还来"]),
        ("10/10", ["10/10"]),
        (" \n ", []),
    ],
)
def test_cases(text, expected):
    assert list(sentences(text)) == expected


@given(st.text(alphabet="aB .!?…。！\"'(<br/>\n1", max_size=60))
def test_nothing_is_lost_but_tags_and_blanks(text):
    import re

    found = list(sentences(text))
    assert all(part and part == part.strip() and "\n" not in part for part in found)
    if "<" not in text:
        assert "".join("".join(found).split()) == "".join(re.sub(r"\s", "", text))
