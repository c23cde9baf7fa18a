"""The sentences and figures at the top of the page."""

import json
import re

import pytest

from kd.storage.files import write_json
from tests.report.written import page, table, words


def test_one_seed_says_nothing_of_others(runs):
    for seed in (0, 1):
        runs.write(f"alone-{seed}", "supervised", 0.62, seed=seed)
        runs.write(f"taught-{seed}", "distillation", 0.80, seed=seed)
        text = words(page(runs.folder))
        assert ("decided: other test rows are expected to show a gain too. One seed does not show" in text) == (
            not seed
        )
    assert "decided: other test rows and other seeds are expected to show a gain too." in text


@pytest.mark.slow
def test_who_does_not_beat_the_bag_is_named(runs):
    bag = {
        "student": {"_target_": "kd.models.bag.BagConfig", "ngrams": 2},
        "of_choices": {"student": "bag", "tokenizer": "words"},
    }
    for seed in (0, 1):
        runs.write(f"alone-{seed}", "supervised", 0.60, seed=seed)
        runs.write(f"taught-{seed}", "distillation", 0.90, seed=seed)
    text = words(page(runs.folder))
    assert "There is no bag of n-grams to compare with" in text
    assert "This command trains one: kd train student=bag method=supervised data=x seed=0 hydra.run.dir=" in text
    runs.write("bag", "supervised", 0.75, **bag)
    text = words(page(runs.folder))
    assert re.search(r"The bag of n-grams has 8\d\.\d % without any network; 1 of 2 beat it\.", text)
    assert re.search(r"Supervised is worse than it \(6\d\.\d %, −1\d\.\d points\)", text)
    assert "no bag of n-grams" not in text
    found = {row["model"]: row for row in table(runs.folder, "bag")}
    assert {name: row["verdict"] for name, row in found.items()} == {"supervised": "worse", "distillation": "better"}
    assert {row["seeds"] for row in found.values()} == {"0, 1 (n = 2)"}, "the bag's only run stands for all seeds"
    assert {"supervised", "distillation", "supervised bag"} <= {row["model"] for row in table(runs.folder, "results")}
    runs.write("bag of the teacher", "distillation", 0.76, **bag)
    assert {row["model"] for row in (page(runs.folder), table(runs.folder, "gain"))[1]} == {
        "distillation",
        "distillation bag",
    }


def test_what_is_close_to_the_bag_is_not_decided(runs):
    bag = {"student": {"_target_": "kd.models.bag.BagConfig"}, "of_choices": {"student": "bag"}}
    runs.write("bag", "supervised", 0.75, **bag)
    runs.write("alone", "supervised", 0.75)
    majority = {"student": {"_target_": "kd.models.fitted.MajorityConfig"}, "of_choices": {"student": "majority"}}
    runs.write("majority", "supervised", 0.5, **majority)
    text = words(page(runs.folder))
    assert "0 of 1 beat it. Supervised does not beat it: this is not decided (" in text


def test_the_ratio_of_the_turns_counts_where_both_were_timed_in_turns(runs):
    paths = [runs.write("alone", "supervised", 0.72), runs.write("taught", "distillation", 0.80)]
    assert "faster than the teacher, one text on the CPU (measured apart) 1×" in words(page(runs.folder))
    for path in paths:
        metrics = json.loads((path / "metrics.json").read_text())
        write_json(path / "metrics.json", metrics | {"speedup": {"ratio": 12.5, "low": 12, "high": 13, "turns": 16}})
    text = words(page(runs.folder))
    assert "faster than the teacher, one text on the CPU 12.5×" in text and "measured apart" not in text


def test_a_student_that_is_slower_or_larger_than_its_teacher_is_not_called_faster_or_smaller(runs):
    paths = [runs.write("alone", "supervised", 0.72), runs.write("taught", "distillation", 0.80)]
    assert "faster than the teacher, one text on the CPU" in words(page(runs.folder))
    for path in paths:
        metrics = json.loads((path / "metrics.json").read_text())
        latency = {name: metrics["latency"][name] / 1.25 for name in ("p50_ms", "p95_ms")} | {"threads": 2}
        total = metrics["parameters"]["total"] // 2
        metrics["teacher_cost"] |= {"latency": latency, "parameters": {"total": total, "without_embeddings": total}}
        write_json(path / "metrics.json", metrics)
    text = words(page(runs.folder))
    assert "slower than the teacher, one text on the CPU (measured apart) 1.25×" in text
    assert "more parameters than the teacher 2×" in text
    assert "faster than" not in text and "fewer parameters" not in text
