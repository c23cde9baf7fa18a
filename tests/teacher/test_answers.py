"""A teacher that is a file, joined to the rows of a run."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from kd.config.compose import composed
from kd.data.batch_weights import batch_shares, row_counts
from kd.errors import KDError
from kd.losses.label import label_loss
from kd.losses.logits import SoftTarget
from kd.methods.distillation import Distillation
from kd.methods.objective import Objective
from kd.methods.schedules import Constant
from kd.predictor import Predictor
from kd.teacher.answers import Answers
from kd.teacher.base import AnyReadyTeacher, AnyTeacher
from kd.teacher.ready import Wanted
from tests.conftest import make_reviews, run_kd
from tests.teacher.conftest import split

ROWS = make_reviews(160)
NAMES = ["negative", "positive"]


def written(path, rows, **more):
    path.write_text(
        "".join(json.dumps({"text": text, "logits": [1.0 - label, label], **more}) + "\n" for text, label in rows)
    )
    return path


@pytest.fixture
def answers(tmp_path, splits) -> Answers:
    """Answers for 50 of the 60 training rows, and for all others."""
    return Answers(str(written(tmp_path / "answers.jsonl", make_reviews(90)[10:])))


def test_it_has_the_two_interfaces_of_a_teacher(answers, splits, tmp_path):
    teacher: AnyTeacher = answers
    ready: AnyReadyTeacher = teacher.ready(splits, tmp_path)
    assert (
        not teacher.has_words
        and ready.members == []
        and ready.cost() == {"name": "answers.jsonl", "training_seconds": None}
    )
    columns, seconds = ready.cached(Wanted(splits.train["text"], "train", tmp_path))
    assert columns["answered"].tolist() == [False] * 10 + [True] * 50 and seconds == 0
    assert set(ready.cached(Wanted(splits.test["text"], "test", tmp_path))[0]) == {"logits"}
    np.testing.assert_array_equal(ready.live_logits(splits.test["text"])[:, 1], splits.test["label"])
    for what in ("tokenizer", "word_table", "config", "max_length"):
        with pytest.raises(KDError, match="teacher=answers is a file and has no"):
            getattr(teacher, what)
    with pytest.raises(KDError, match="without a model to run"):
        ready.live()


@pytest.mark.parametrize(("missing", "kept"), [("gold", 55), ("drop", 50)])
def test_rows_without_an_answer_are_taught_by_gold_or_dropped(answers, splits, missing, kept, caplog):
    caplog.set_level("INFO")
    labels = [*splits.train["label"][:5], *[-100] * 5, *splits.train["label"][10:]]
    train = split(make_reviews(90)[:60], labels)
    taught = Answers(answers.path, missing=missing).taught(train, splits.label_names)
    assert len(taught) == kept
    assert f"50 of 60 training rows have an answer in answers.jsonl, {kept - 50} are taught by gold" in caplog.text


def test_rows_without_an_answer_can_be_refused(answers, splits, tmp_path):
    with pytest.raises(KDError, match=r"10 of 60 training rows have no answer in .*teacher\.missing to gold or drop"):
        Answers(answers.path, missing="refuse").taught(splits.train, splits.label_names)
    other = written(tmp_path / "other.jsonl", [("something else", 0)])
    with pytest.raises(KDError, match=r"expected answers for the training texts in .*, found none among 60 texts"):
        Answers(str(other)).taught(splits.train, splits.label_names)
    with pytest.raises(KDError, match="expected a file of answers, found none"):
        Answers(str(tmp_path / "none.jsonl")).require(splits)


def test_classes_in_another_order_are_noticed(tmp_path, splits):
    turned = written(tmp_path / "turned.jsonl", [(text, 1 - label) for text, label in make_reviews(90)])
    said = r"on 0\.0% of 15 validation rows, .* order \[positive, negative\]; .* reorder the answers of the file"
    with pytest.raises(KDError, match=said):
        Answers(str(turned)).ready(splits, tmp_path)


def test_what_decides_the_logits_is_in_the_checksum(answers, splits, tmp_path):
    def checksum(**options) -> str:
        return Answers(answers.path, **options).ready(splits, tmp_path).checksum

    sums = {checksum(), checksum(temperature=2.0), checksum(floor=0.01)}
    written(tmp_path / "answers.jsonl", make_reviews(90)[9:])
    assert len(sums | {checksum()}) == 4


class Rows(Distillation.__mro__[1]):  # LogitMethod, with logits that are given
    def __init__(self, alpha: float):
        torch.nn.Module.__init__(self)
        self.objective = Objective({"soft_target": SoftTarget(2.0)}, Constant(alpha))
        self.teacher = lambda batch, features: (batch["teacher_logits"], {})
        self.student = torch.nn.Linear(2, 2)
        self.progress_, self.label_share = 0.0, 1.0

    progress = 0.0

    @classmethod
    def require(cls, objective, options):
        pass

    def logits(self, batch):
        return batch["own"]

    def label_term(self, logits, batch):
        return label_loss(logits, batch["labels"]) * self.label_share


def test_a_row_without_an_answer_has_the_label_loss_alone():
    """The loss of a batch is the mean of the losses of its rows, each computed alone."""
    generator = torch.Generator().manual_seed(0)
    own, theirs = (torch.randn(6, 2, generator=generator) for _ in range(2))
    labels, answered = torch.tensor([0, 1, 1, 0, 1, 0]), torch.tensor([True, False, True, True, False, True])
    theirs[~answered] = torch.nan
    batch = {"own": own, "teacher_logits": theirs, "labels": labels, "teacher_answered": answered}

    def total(alpha: float, rows: torch.Tensor, **without) -> float:
        chosen = {name: value[rows] for name, value in batch.items() if name not in without}
        return Rows(alpha).losses(chosen)["total"].item()

    alone = [total(0.7, torch.tensor([row]), teacher_answered=0) for row in range(6) if answered[row]]
    gold = [total(0.0, torch.tensor([row]), teacher_answered=0) for row in range(6) if not answered[row]]
    every = torch.arange(6)
    assert total(0.7, every) == pytest.approx(np.mean([*alone, *gold]), rel=1e-5)
    assert total(0.7, every[~answered]) == pytest.approx(np.mean(gold), rel=1e-5)
    assert total(0.7, every[answered]) == pytest.approx(total(0.7, every[answered], teacher_answered=0), rel=1e-6)


@pytest.mark.parametrize(("accumulate", "world_size"), [(3, 1), (1, 3)])
def test_batches_of_a_step_make_the_loss_of_one_large_batch(accumulate, world_size):
    """Rows with and without an answer and a label, unevenly spread over three batches, one without an answer."""
    generator = torch.Generator().manual_seed(0)
    own, theirs = (torch.randn(12, 2, generator=generator) for _ in range(2))
    labels = torch.tensor([0, -100, 1, -100, -100, 1, 0, 1, 1, 0, 1, 0])
    answered = torch.tensor([True] * 5 + [False, True, False] + [False] * 4)
    theirs[~answered] = torch.nan
    batch = {"own": own, "teacher_logits": theirs, "labels": labels, "teacher_answered": answered}
    parts = [slice(0, 3), slice(3, 8), slice(8, 12)]
    method, whole = Rows(0.7), Rows(0.7).losses(batch)
    if world_size == 1:
        counts = [row_counts(labels[part].numpy(), labels[part].numpy()) for part in parts]
        weights = batch_shares(counts, accumulate, world_size)
    else:
        weights = [
            batch_shares([row_counts(labels.numpy(), labels[part].numpy())], accumulate, world_size)[0]
            for part in parts
        ]
    found = []
    for part, (share, method.label_share) in zip(parts, weights, strict=True):
        terms = method.losses({name: value[part] for name, value in batch.items()})
        assert terms.keys() == whole.keys() and method.curves.keys() == {"alpha"}, "ranks log the same names"
        found.append({name: share / (accumulate * world_size) * float(terms[name]) for name in ("total", "label")})
    for name in ("total", "label"):
        assert sum(one[name] for one in found) == pytest.approx(float(whole[name]), rel=1e-5)


@pytest.fixture
def files(reviews_file, tmp_path, monkeypatch) -> list[str]:
    """The options of a tiny run that is taught by a file."""
    monkeypatch.chdir(tmp_path)
    return [
        *("data=files", f"data.path={reviews_file}", "data.label_names=[negative,positive]", "data.max_length=24"),
        *("data.batch_size=16", "data.validation_share=0.2", "data.test_share=0.2", "threads=1"),
        *("trainer=cpu", "trainer.max_epochs=2", "callbacks=[checkpoint]", "hydra.launcher.report=false"),
        *("student=dan", "teacher=answers", "hydra.run.dir=run"),
    ]


@pytest.mark.slow
def test_runs_predict_answers_and_learn_from_them(files, reviews_file, capsys):
    """A student's predictions teach another student; the report has the file as the teacher."""
    bag = [*files[:-3], "student=bag", "tokenizer=words", "embeddings=random", "method=supervised", "teacher=none"]
    assert run_kd("train", *bag, "hydra.run.dir=first") == 0
    assert run_kd("predict", "first", "--file", reviews_file, "--out", "answers.jsonl") == 0
    assert run_kd("train", *files, "teacher.path=answers.jsonl") == 0
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert metrics["teacher_cost"]["name"] == "answers.jsonl" and "speedup" not in metrics
    assert "rows" not in metrics["test"]["teacher"] and metrics["test"]["agreement"] > 0
    capsys.readouterr()
    assert run_kd("report", "first", "run") == 0
    printed = capsys.readouterr().out
    assert any(line.startswith("teacher ") for line in printed.splitlines()) and "answers.jsonl" in printed
    some = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()][::2]
    Path("some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    assert run_kd("train", *files, "teacher.path=some.jsonl", "hydra.run.dir=some") == 0
    metrics = json.loads(Path("some/metrics.json").read_text())
    assert 0 < metrics["test"]["teacher"]["rows"] < metrics["test"]["rows"]
    assert "some.jsonl, " in capsys.readouterr().out
    assert run_kd("report", "some") == 0
    assert (
        f"answers {metrics['test']['teacher']['rows']} of {metrics['test']['rows']} test rows"
        in capsys.readouterr().out
    )
    assert run_kd("train", *files, "teacher.path=some.jsonl", "student=bag", "hydra.run.dir=bag") == 0
    assert run_kd("evaluate", "some") == 0


def test_a_student_may_start_from_the_words_of_another_model(files, teacher_folder):
    written(Path("answers.jsonl"), ROWS)
    own = [f"teacher.words_of={teacher_folder}", "tokenizer=restricted", "embeddings=pca", "student.embedding_size=16"]
    assert run_kd("train", *files, "teacher.path=answers.jsonl", *own, "trainer.max_epochs=1") == 0
    theirs, student = (Predictor.load(Path(place)).tokenizer for place in (teacher_folder, "run"))
    assert set(student.get_vocab()) <= set(theirs.get_vocab())
    assert student.tokenize("a charming film") == theirs.tokenize("a charming film")


def test_a_checkpoint_keeps_its_tokenizer_and_its_word_table():
    """The choice teacher=answers sets both too, for other students."""
    chosen = composed(["student=hf", "student.name_or_path=a", "teacher=answers", "teacher.path=b"]).choices
    assert (chosen.tokenizer, chosen.embeddings) == ("pretrained", "own")
    chosen = composed(["student=dan", "teacher=answers", "teacher.path=b"]).choices
    assert (chosen.tokenizer, chosen.embeddings) == ("words", "random")


@pytest.mark.slow
def test_text_alone_is_selected_by_agreement_with_the_teacher(files):
    """As in the docs: the labels of a file that `kd predict` wrote stand in for gold ones."""
    with Path("labelled.jsonl").open("w") as file:
        for text, label in ROWS:
            answer = {"prediction": NAMES[label], "probability_negative": 0.9 - 0.8 * label}
            file.write(json.dumps({"text": text, **answer, "probability_positive": 0.1 + 0.8 * label}) + "\n")
    given = [option for option in files if not option.startswith("data.path")]
    own = ["data.path=labelled.jsonl", "data.label=prediction", "teacher.path=labelled.jsonl"]
    assert run_kd("train", *given, *own, "alpha=1") == 0
    metrics = json.loads(Path("run/metrics.json").read_text())
    for name in ("validation", "test"):
        assert metrics[name]["accuracy"] == pytest.approx(metrics[name]["agreement"])
        assert metrics[name]["teacher"]["accuracy"] == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["tokenizer=restricted"], "tokenizer=restricted is made from the teacher's"),
        (["embeddings=pca"], "embeddings=pca is made from the teacher's word table"),
        (["method=hints", "loss=[hint]"], "method=hints reads the teacher's layers"),
        (["loss=[hint]"], "loss 'hint' compares hidden states"),
        (["embeddings=encoded"], "embeddings=encoded is what the teacher answers to single words"),
        (["student=truncated"], "student=truncated is cut out of the teacher, and teacher=answers is a file"),
        (["transfer=[halves]"], "found none; leave transfer and data.unlabelled out"),
        (["cache.use=false"], "teacher=answers has no model to run"),
        (["teacher.words_of=nowhere", "tokenizer=restricted"], "the model of teacher.words_of, 'nowhere' is neither"),
        (["teacher.temperature=0"], "teacher.temperature: expected a number"),
        (["teacher.missing=no"], "teacher.missing: expected gold, drop or refuse"),
    ],
)
def test_what_a_file_cannot_give_is_refused_in_a_sentence(files, overrides, message, capsys):
    written(Path("answers.jsonl"), ROWS)
    assert run_kd("train", *files, "teacher.path=answers.jsonl", *overrides) == 2
    assert message in capsys.readouterr().err
