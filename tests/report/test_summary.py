"""The sentences and figures at the top of the page."""

import json

from kd.storage.files import write_json
from tests.report.written import page, words


def test_one_seed_says_nothing_of_others(runs):
    for seed in (0, 1):
        runs.write(f"alone-{seed}", "supervised", 0.62, seed=seed)
        runs.write(f"taught-{seed}", "distillation", 0.80, seed=seed)
        text = words(page(runs.folder))
        assert ("decided: other test rows are expected to show a gain too. One seed does not show" in text) == (
            not seed
        )
    assert "decided: other test rows and other seeds are expected to show a gain too." in text


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
