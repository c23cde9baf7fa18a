"""Which candidates the rules choose; nothing is read or trained."""

from dataclasses import replace

import pytest

from kd.advice.rules import Facts, shortlist, smaller

REVIEWS = Facts("rotten_tomatoes", 6796, 6796, 2, 21.0, True, 0, "tuned", 6, True)
QUESTIONS = replace(REVIEWS, data="trec", classes=6, words=10.0, teacher="untuned")
CHINESE = replace(REVIEWS, data="chnsenticorp", spaced=False, latin=False, words=1.2)
ANSWERS = replace(REVIEWS, data="files", teacher="answers", layers=0, words_at_hand=False)
TEXT = replace(ANSWERS, labels=False)
ALONE = replace(REVIEWS, teacher="none", layers=0, words_at_hand=False)
MUCH = replace(REVIEWS, data="files", rows=86_000, labelled=6_000, unlabelled=80_000)


@pytest.mark.parametrize("facts", [REVIEWS, QUESTIONS, CHINESE, ANSWERS, ALONE, MUCH, TEXT])
def test_a_shortlist_has_different_candidates_with_reasons_and_its_floor(facts):
    found = shortlist(facts)
    assert 3 <= len(found) <= 10 and len({tuple(sorted(one.overrides)) for one in found}) == len(found)
    assert len({one.name for one in found}) == len(found) and all(one.why for one in found)
    assert found[0].get("student") == "bag" and (found[0].get("method") == "supervised") is facts.labels
    assert {"textcnn", "bilstm", "dan"} <= {one.get("student") for one in found}


def get(facts: Facts, key: str) -> set[str | None]:
    return {one.get(key) for one in shortlist(facts)}


def test_settings_follow_the_facts():
    assert "[imdb_sentences]" in get(REVIEWS, "transfer") and "[edits]" in get(QUESTIONS, "transfer")
    assert get(replace(REVIEWS, most_texts=1_500), "transfer") == {None}, "the time allows too few texts"
    assert get(replace(REVIEWS, most_texts=7_900), "transfer_rows") == {None, "7000"}
    assert "4.0" in get(QUESTIONS, "temperature") and "4.0" not in get(REVIEWS, "temperature")
    assert get(CHINESE, "transfer") == {None} and "[1,3]" in get(CHINESE, "student.characters")
    assert "truncated" not in get(ANSWERS, "student") and "asset:all-minilm-l6-v2" in get(ANSWERS, "teacher.words_of")
    assert get(ALONE, "method") == {"supervised"} and get(ALONE, "alpha") == {None}
    assert get(TEXT, "method") == {"distillation"} and get(TEXT, "alpha") == {"1.0"}
    assert "[0,4,8]" in get(replace(REVIEWS, layers=12), "student.layers")
    assert "ngrams" in get(MUCH, "student") and "ngrams" not in get(REVIEWS, "student")


def test_only_networks_have_a_smaller_form():
    kinds = {one.get("student"): smaller(one) for one in shortlist(REVIEWS)}
    assert kinds["bag"] is None and kinds["truncated"] is None
    assert kinds["dan"] and kinds["dan"].get("student.embedding_size") == "32"
