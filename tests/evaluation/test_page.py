"""The sentences and tables of an evaluation that was written by hand."""

from kd.evaluation.page import both, document, sentences

SURE, OPEN = {"value": -0.1, "low": -0.2, "high": -0.05}, {"value": -0.1, "low": -0.2, "high": 0.05}
NONE = {"value": None, "low": None, "high": None}
NAMES = ("accuracy", "macro_f1", "balanced_accuracy", "auroc", "ece", "nll", "brier")


def data(name, **changes):
    metrics = {key: {"value": 0.75, "low": 0.5, "high": 0.9} for key in NAMES}
    one = {"name": name, "rows": 40, "metrics": metrics, "confusion": [[3, 1], [2, 4]], "difference": None}
    return one | {"teacher": None, "bag": None, "slices": []} | changes


def found(*more, **changes):
    part = {"name": "negation", "rows": 20, "accuracy": 0.5, "difference": SURE}
    content = {"labels": ["bad", "good"], "temperature": None, "teacher": None, "bag": None, "notes": []}
    content |= {"data": [data("test", slices=[part, {**part, "difference": OPEN}]), *more]}
    return content | {"robustness": [], "pairs": None, "suite": []} | changes


def test_only_what_is_decided_is_called_worse():
    said = sentences(found(data("a.csv", difference=SURE), data("b.csv", difference=OPEN)))
    assert said[0] == "Worse in 1 of 2 slices of test: negation (20 rows, −10.0 points [−20.0, −5.0])."
    assert said[1] == "Accuracy on a.csv against test: −10.0 points [−20.0, −5.0]."
    assert not any("on b.csv against" in line for line in said)


def test_word_order():
    change = {"name": "word order shuffled", "changed": 1.0, "accuracy": 0.7, "difference": OPEN, "p_value": 0.5}
    change |= {"flipped": {"value": 0.0, "low": 0.0, "high": 0.1}}
    same = sentences(found(robustness=[{**change, "moved": {"value": 1e-7, "low": 0.0, "high": 0.1}}]))
    assert same[-1].startswith("It does not read word order")
    other = sentences(found(robustness=[{**change, "moved": {"value": 0.02, "low": 0.01, "high": 0.1}}]))
    assert other[-1] == (
        "It reads word order: with shuffled words the probability of its label moves by 2.0 points on average, 0.0 % "
        "of the texts get another label, and the accuracy changes by −10.0 points [−20.0, +5.0] (not decided)."
    )


def test_a_page_has_what_was_measured_and_no_more():
    titles = [block.title for block in document(found(), "run", ["run"]).sections[0].blocks]
    assert titles == ["Figures", "Calibration", "Slices", "Confusion matrix", "All figures with their intervals"]
    assert [cell.text for cell in both(NONE)] == ["", ""] and both(SURE, "kl")[0].text == "-0.100"
