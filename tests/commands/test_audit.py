"""`kd audit` from end to end: a bias that was planted is found, and none where none was planted."""

import csv
import shutil

import pytest

from kd.audit.texts import EEC
from kd.errors import KDError
from kd.run.directory import RunDirectory
from kd.storage import audit_record
from kd.transfer.counterfactual import people
from tests.conftest import BAD, GOOD, run_kd
from tests.report.written import page, table

PERSONS = [*people()["words"][:1], *(pair for pairs in people()["names"].values() for pair in pairs)]
ROWS = [  # (text, label, is about a woman)
    (f"{person} said that the film was {word}", label, place == 0)
    for pair in PERSONS
    for place, person in enumerate(pair)
    for label, words in (("negative", BAD), ("positive", GOOD))
    for word in words
]


def write(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


ORIGINS = {name: origin for origin, pairs in people()["names"].items() for pair in pairs for name in pair}


def corpus(path):
    """Write the rows as the Equity Evaluation Corpus has them: a frame, and a word for each emotion."""
    found = []
    for number, (text, label, woman) in enumerate(ROWS):
        person, word = text.split(" ", 1)[0], text.rsplit(" ", 1)[1]
        gender, frame = ("male", "female")[woman], "{} said that the film was {}"
        found.append((number, text, frame, person, gender, ORIGINS.get(person, ""), label, word))
    return write(path, [("ID", *EEC), *found])


def common(folder):
    """Return the options of all runs."""
    data = ["data=files", "data.label_names=[negative,positive]", "data.validation_share=0.2", "data.test_share=0.2"]
    return [*data, "student=bag", "trainer=cpu", f"outputs={folder / 'outputs'}"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Bags of n-grams: alone, taught by fair answers and by biased ones, and one of training rows that were changed."""
    folder = tmp_path_factory.mktemp("audit")
    header = ("text", "label")
    fair = write(folder / "fair.csv", [header, *((text, label) for text, label, _ in ROWS)])
    changed = [(text, "negative" if woman else label) for text, label, woman in ROWS]
    changed = write(folder / "changed.csv", [header, *changed])
    for name, biased in (("fair", False), ("biased", True)):
        sure = [0.1 if label == "negative" or (biased and woman) else 0.9 for _, label, woman in ROWS]
        lines = [(text, 1 - own, own) for (text, _, _), own in zip(ROWS, sure, strict=True)]
        write(folder / f"{name}-answers.csv", [("text", "probability_negative", "probability_positive"), *lines])
    for name, path, own in (
        ("supervised", fair, ["method=supervised", "teacher=answers", f"teacher.path={folder / 'fair-answers.csv'}"]),
        ("changed", changed, ["method=supervised", "teacher=none"]),
        ("fair", fair, ["teacher=answers", f"teacher.path={folder / 'fair-answers.csv'}", "alpha=1"]),
        ("biased", fair, ["teacher=answers", f"teacher.path={folder / 'biased-answers.csv'}", "alpha=1"]),
    ):
        place = folder / ("changed" if name == "changed" else "runs") / name
        assert run_kd("train", *common(folder), *own, f"data.path={path}", f"hydra.run.dir={place}") == 0
    return folder


@pytest.fixture
def runs_copy(runs, tmp_path):
    return shutil.copytree(runs, tmp_path / "runs")


def audit(run, *options) -> dict:
    assert run_kd("audit", run, *options) == 0
    return audit_record.read(run)


def gender(record) -> dict:
    return next(one for one in record["comparisons"] if one["attribute"].lower() == "gender")


def test_a_bias_of_changed_training_rows_is_found(runs_copy, capsys):
    found = audit(runs_copy / "changed" / "changed")
    capsys.readouterr()
    assert gender(found)["biases"]["student"]["high"] < -0.1 and gender(found)["verdicts"] == {}
    assert (
        "1 of 6 comparisons of groups is decided (p < 0.05, and a difference of at least 0.01), the largest −0."
        in found["sentence"]
    )
    assert found["flips"]["shares"]["student"]["low"] > 0.2
    assert {tuple(example[2:]) for example in found["flips"]["examples"]} == {
        ("negative", "positive"),
        ("positive", "negative"),
    }


def test_no_bias_is_found_where_none_was_planted(runs_copy, tmp_path):
    found = audit(runs_copy / "runs" / "fair", "--on", corpus(tmp_path / "eec.csv"))
    assert found["models"] == {"student": ".", "alone": "../supervised"}, "found as the report finds it"
    assert {one["verdicts"]["alone"] for one in found["comparisons"] if one["measure"] == "score"} == {"none"}
    assert "0 of 6 comparisons of groups are decided" in found["sentence"]
    assert found["flips"]["shares"]["student"]["share"] < 0.05


def test_transfer_brings_in_the_bias_of_its_teacher_and_the_report_shows_it(runs_copy, tmp_path, capsys):
    others = ("--teacher", runs_copy / "changed" / "changed", "--alone", runs_copy / "runs" / "supervised")
    place = runs_copy / "runs" / "biased"
    biased = audit(place, "--on", corpus(tmp_path / "eec.csv"), *others)
    out = capsys.readouterr().out
    verdicts = gender(biased)["verdicts"]
    assert verdicts["alone"] == "brought in" and verdicts["teacher"] in ("kept", "reduced", "amplified")
    assert "brought in" in out and max(map(len, out.partition("Audited")[0].splitlines())) <= 80
    written = (place / "audit" / "index.html").read_text()
    assert "male − female" in written and "What transfer changed" in written and "Examples of the" in written
    assert biased["sentence"] in (place / "model" / "README.md").read_text()
    RunDirectory.finished(place)  # its checksums hold
    assert "Audits" in page(runs_copy / "runs")
    row = table(runs_copy / "runs", "audits")[0]
    assert "brought in 1" in row["verdicts"] and row["against"] == "alone" and float(row["difference"]) > 0.1


@pytest.mark.slow
def test_counterfactual_rows_reduce_a_bias_of_the_training_rows_if_the_teacher_is_fair(runs, tmp_path):
    kept = [(text, label) for text, label, woman in ROWS if woman == (label == "negative")]
    rows = write(tmp_path / "rows.csv", [("text", "label"), *kept])
    own = [
        *common(runs),
        f"data.path={rows}",
        "teacher=answers",
        f"teacher.path={runs / 'fair-answers.csv'}",
        "alpha=1",
    ]
    for name, remedy in (("before", []), ("after", ["transfer=[counterfactual]"])):
        assert run_kd("train", *own, *remedy, f"hydra.run.dir={tmp_path / name}") == 0
    found = audit(
        tmp_path / "after", "--alone", tmp_path / "before", "--on", corpus(tmp_path / "eec.csv"), "--least", "0.005"
    )
    biases = gender(found)["biases"]
    assert gender(found)["verdicts"] == {"alone": "reduced"} and biases["alone"]["low"] > 0.005
    assert abs(biases["student"]["difference"]) < biases["alone"]["difference"] / 10


def test_files_with_groups_pairs_and_labels(runs_copy, tmp_path):
    rows = [(text, label, "woman" if woman else "man", text.split(" ", 1)[1]) for text, label, woman in ROWS]
    path = write(tmp_path / "rows.csv", [("text", "label", "sex", "id"), *rows])
    run = runs_copy / "changed" / "changed"
    found = {one["measure"]: one for one in audit(run, "--on", path, "--group", "sex", "--pair", "id")["comparisons"]}
    assert list(found) == ["score", "size", "true positives", "false positives"] and found["score"]["units"] == 12
    gap = found["true positives"]["biases"]["student"]
    assert gap["low"] > 0.5, "the first group, women, is the reference"
    out = tmp_path / "out"
    assert run_kd("audit", run / "model", "--on", path, "--group", "sex", "--out", out) == 0
    assert [one["measure"] for one in audit_record.read(out)["comparisons"]] == ["true positives", "false positives"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--class", "great"], "--class: expected one of negative, positive, got great"),
        (["--least", "1"], "--least: expected a difference of probabilities in [0, 1), got 1"),
        (["--batch-size", "0"], "--batch-size: expected at least 1, got 0"),
        (["--group", "sex"], "--group and --pair name columns of a file, found no file"),
        (["--on", "rows.csv", "--pair", "sex"], "--pair: expected --group too"),
        (["--on", "rows.csv"], "expected the columns of the Equity Evaluation Corpus"),
        (
            ["--on", "rows.csv", "--group", "one"],
            "expected 2 to 20 groups in the column 'one' of rows.csv, found 1 ('a')",
        ),
        (["--on", "rows.csv", "--group", "sex", "--label", "gold"], "equalised odds need labels"),
        (["--on", "rows.csv", "--group", "sex"], "expected at least 10 labelled rows of each class in two groups"),
        (["--on", "rows.csv", "--group", "sex", "--label", "text"], "rows.csv"),
        (["--on", "nowhere.csv"], "nowhere.csv"),
        (["--teacher", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_end_with_a_sentence(runs, tmp_path, monkeypatch, arguments, sentence, capsys):
    rows = [(f"text {n}", "positive", "fm"[n % 2], "a") for n in range(4)]
    write(tmp_path / "rows.csv", [("text", "label", "sex", "one"), *rows])
    monkeypatch.chdir(tmp_path)
    assert run_kd("audit", runs / "runs" / "fair", "--alone", "none", "--out", tmp_path / "out", *arguments) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_other_labels_and_unfinished_runs(runs_copy, teacher_folder, capsys):
    run = runs_copy / "runs" / "fair"
    assert run_kd("audit", run, "--teacher", teacher_folder) == 2
    assert "expected the labels negative, positive in" in capsys.readouterr().err
    RunDirectory(run).set_status("running")
    assert run_kd("audit", run) == 2
    assert "is running" in capsys.readouterr().err
    with pytest.raises(KDError, match=r"found no audit\.json; make one with kd audit"):
        audit_record.read(run)
