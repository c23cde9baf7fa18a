"""The keys of transfer sets: what decides the texts counts."""

from dataclasses import replace

from kd.data.splits import text_keys
from kd.storage.checksum import digest
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


def test_the_names_of_the_labels_count_for_a_step_that_reads_them(splits, monkeypatch):
    known = Known.of(splits)
    renamed = replace(known, train=replace(known.train, names=["bad", "good"]))
    key = recipe().key_of_step("halves", known)
    assert recipe().key_of_step("halves", renamed) == key
    rows = [list(row) for row in zip(known.train.texts, known.train.labels, strict=True)]
    checksum = digest([rows, sorted(side.hex() for side in known.train.held_out)])
    assert key == digest([1, 1, {"_target_": OPTIONS["_target_"], "rounds": 4}, 0, checksum])[:20], "as kd once stored"
    monkeypatch.setattr(Halves, "reads_names", True)
    assert len({key, recipe().key_of_step("halves", known), recipe().key_of_step("halves", renamed)}) == 3
