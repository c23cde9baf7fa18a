"""The keys of transfer sets: what decides the texts counts."""

from dataclasses import replace

from kd.data.splits import text_keys
from kd.transfer.ngram_model import Halves
from kd.transfer.recipe import Known, TransferRecipe

OPTIONS = {"_target_": "kd.transfer.ngram_model.Halves", "rounds": 4, "most": None}


def recipe(**changed):
    given = {"steps": {"halves": Halves()}, "options": {"halves": OPTIONS}, "seed": 0, "rows": None, "column": "text"}
    return TransferRecipe(**given | changed)


def test_known_rows(splits):
    known = Known.of(splits)
    assert len(known.train.texts) == len(known.train.labels) == len(splits.train) == len(known.keys)
    assert text_keys(splits.test["text"][0])[1] in known.train.held_out
    assert text_keys(splits.train["text"][0])[1] not in known.train.held_out


def test_what_decides_the_set_is_in_its_key(splits):
    known = Known.of(splits)
    keys = {
        each.key(rows)
        for each, rows in (
            (recipe(), known),
            (recipe(seed=1), known),
            (recipe(rows=9), known),
            (recipe(column="review"), known),
            (recipe(options={"halves": OPTIONS | {"most": 3}}), known),
            (recipe(options={"halves": OPTIONS | {"rounds": 3}}), known),
            (recipe(), replace(known, checksum="other")),
        )
    }
    assert len(keys) == 7
    assert recipe().key(known) == recipe().key(Known.of(splits))


def test_what_only_chooses_is_not_in_the_key_of_the_step(splits, monkeypatch):
    known = Known.of(splits)
    key = recipe().key_of_step("halves", known)
    for same in (recipe(rows=9), recipe(options={"halves": OPTIONS | {"most": 3}}), recipe(column="review")):
        assert same.key_of_step("halves", known) == key
    for other in (recipe(seed=1), recipe(options={"halves": OPTIONS | {"rounds": 3}})):
        assert other.key_of_step("halves", known) != key
    monkeypatch.setattr(Halves, "version", 2)
    assert recipe().key_of_step("halves", known) != key
