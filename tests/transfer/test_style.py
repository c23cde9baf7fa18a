"""Other texts are written as the training rows are."""

from hypothesis import given
from hypothesis import strategies as st

from kd.transfer.style import Style

TOKENISED = [
    "it's a so-so film , really . . .",
    'the " best " film ( of all ) !',
    "why ? -- it isn't clear ; or is it ?",
] * 9
PLAIN = ["It's a so-so film, really...", 'The "best" film (of all)!', "Why? It isn't clear; or is it?"] * 9
CLITICS = ["it 's a film that does n't end .", "they 've seen it , we 'll not ."] * 9


def test_rows_in_small_letters_with_blanks_around_marks():
    style = Style.of(TOKENISED)
    assert style.lower and style.spaced and not style.clitics
    assert style.apply("It's GOOD, isn't it?") == "it's good , isn't it ?"
    assert (
        style.apply('He said: "Well..." (twice)--on 4.5 stars!!')
        == 'he said : " well . . . " ( twice ) -- on 4.5 stars ! !'
    )
    assert "lower case" in str(style)


def test_plain_rows_leave_texts_as_they_are():
    style = Style.of(PLAIN)
    text = "It's \"GOOD\", isn't it? (Yes...)"
    assert style.apply(text) == text
    assert str(style) == "capital letters kept, no blanks around punctuation"


def test_clitics_apart():
    style = Style.of(CLITICS)
    assert style.apply("It doesn't work and they've left.") == "it does n't work and they 've left ."


def test_rows_without_blanks():
    style = Style.of(["服务很好，房间干净。", "不错！"] * 9)
    assert not style.spaced
    assert style.apply("很差，不来了。") == "很差，不来了。"
    assert style.joined(style.tokens("很 差")) == "很差"


def test_training_rows_stay_as_they_are():
    style = Style.of(TOKENISED)
    assert [style.apply(text) for text in TOKENISED] == TOKENISED


@given(st.text(max_size=60))
def test_any_text_keeps_its_letters(text):
    style = Style.of(TOKENISED)
    keep = lambda text: "".join(character for character in text if character.isalnum())  # noqa: E731
    assert keep(style.apply(text)) == keep(text.lower())
    assert style.apply(style.apply(text)) == style.apply(text)
