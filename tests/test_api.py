"""The functions of `import kd` do what the commands do, write the same files, and leave the process as it was."""

import logging
import os
import random
import re
import shutil
import subprocess
import sys
import warnings
from io import StringIO
from pathlib import Path

import datasets
import numpy as np
import pandas
import pytest
import torch
import transformers
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf.basecontainer import BaseContainer

import kd
from kd.errors import KDError
from kd.run.directory import RunDirectory
from tests.conftest import make_reviews, run_kd

SUPERVISED = {"student": "dan", "method": "supervised"}


@pytest.fixture
def run(options):
    return kd.train(*options, directory="runs/dan", **SUPERVISED)


def alone(code: str) -> str:
    """What a Python process of its own prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_run_is_one_that_the_commands_know(run, options, capsys):
    assert run.metrics["test"]["rows"] and str(run.directory) == "runs/dan"
    own = [f"{key}={value}" for key, value in SUPERVISED.items()]
    assert run_kd("train", *options, *own, "hydra.run.dir=runs/command") == 0
    of_command = kd.read_run("runs/command")
    statuses = [RunDirectory(each.directory).status() for each in (run, of_command)]
    assert statuses[0]["identity"] == statuses[1]["identity"]
    assert statuses[0]["products"]["model/model.safetensors"] == statuses[1]["products"]["model/model.safetensors"]
    capsys.readouterr()
    assert run_kd("predict", "runs/dan", "a charming film", "a dull film") == 0
    printed = pandas.read_csv(StringIO(capsys.readouterr().out))
    found = run.predict(["a charming film", "a dull film"])
    pandas.testing.assert_frame_equal(found, printed, check_dtype=False, atol=1e-6)
    assert run_kd("reproduce", "runs/dan") == 0
    assert "reproduced to the last bit" in capsys.readouterr().out


def test_the_same_call_trains_nothing_again(run, options, capsys):
    before = (run.directory / "status.json").read_bytes()
    kd.train(*options, directory="runs/dan", **SUPERVISED)
    assert "already done" in capsys.readouterr().out and (run.directory / "status.json").read_bytes() == before


def test_a_report_prints_the_table_and_is_a_page_in_a_notebook(run, capsys):
    report = run.report()
    assert "supervised" in capsys.readouterr().out
    assert [each.directory for each in report.runs] == [run.directory]
    assert report.tables["results"].shape[0] == 2  # the teacher and the student
    assert "&lt;svg" in report._repr_html_() and report.page.is_file()


def state():
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in ("kd", "lightning", "datasets"))]
    return {
        "environment": dict(os.environ),
        "hydra": (GlobalHydra.instance().is_initialized(), HydraConfig.instance().cfg, set(BaseContainer._resolvers)),
        "loggers": [(one.name, list(one.handlers), one.level, one.propagate) for one in loggers],
        "argv": list(sys.argv),
        "warnings": list(warnings.filters),
        "random": random.getstate(),
        "numpy": [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],
        "torch": (torch.get_rng_state().tolist(), torch.get_num_threads()),
        "modes": (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark),
        "transformers": (transformers.logging.get_verbosity(), transformers.utils.logging.is_progress_bar_enabled()),
        "folder": os.getcwd(),
    }


def test_a_training_leaves_no_global_state_behind(options):
    torch.set_num_threads(2)  # a run with threads=1 sets another number
    transformers.utils.logging.enable_progress_bar()
    try:
        before = state()
        kd.train(*options, directory="runs/dan", **SUPERVISED)
        after = state()
        assert {key: (before[key], after[key]) for key in before if before[key] != after[key]} == {}
        with pytest.raises(KDError):
            kd.train(*options, "data.path=missing.csv", directory="runs/b", **SUPERVISED)
        assert state() == before
    finally:
        torch.set_num_threads(1)
        transformers.utils.logging.disable_progress_bar()


def test_frames_and_data_sets_are_data(options, tmp_path):
    rows = make_reviews(160)
    names = ("negative", "positive")
    frame = pandas.DataFrame({"review": [text for text, _ in rows], "label": [names[label] for _, label in rows]})
    own = [word for word in options if not word.startswith(("data=", "data.path"))]
    one = kd.train(*own, "data.text=review", data=frame, directory="runs/frame", **SUPERVISED)
    label = datasets.ClassLabel(names=list(names))
    table = datasets.Dataset.from_dict({"review": frame["review"], "label": [label for _, label in rows]})
    table = table.cast_column("label", label)
    own.remove("data.label_names=[negative,positive]")
    parts = {"train": table.select(range(120)), "test": table.select(range(120, 160))}
    two = kd.train(*own, data=datasets.DatasetDict(parts) | {"text": "review"}, directory="runs/set", **SUPERVISED)
    assert RunDirectory(two.directory).environment()["data"]["label_names"] == list(names)
    assert two.metrics["test"]["rows"] == 40
    place = RunDirectory(one.directory).config()["data"]["path"]
    assert len(list((tmp_path / "outputs" / "given").iterdir())) == 3 and place.startswith(str(tmp_path / "outputs"))
    assert run_kd("evaluate", "runs/frame") == 0


@pytest.mark.slow
def test_a_sweep_takes_lists_of_values(options, capsys):
    report = kd.sweep(*options, method="supervised", student=["dan", "mlp"], seed=[0, 1], directory="sweep")
    assert len(report.runs) == 4 and "done" in capsys.readouterr().out
    with pytest.raises(KDError, match="jobs failed"):
        kd.sweep(
            *options, method="supervised", student="dan", directory="other", data={"path": "missing.csv"}, seed=[1, 2]
        )


def test_reading_needs_no_torch(run):
    code = "import kd, sys; run = kd.read_run('runs/dan'); report = kd.read_report('runs'); report.page, report.tables"
    assert alone(f"{code}; print(len(run.metrics) > 5, len(report.runs), 'torch' in sys.modules)") == "True 1 False"


def test_the_students_are_registered_when_transformers_comes(run):
    ask = "print(pipeline('text-classification', model='runs/dan/model')('a charming film')[0]['label'])"
    assert alone(f"import kd\nfrom transformers import pipeline\n{ask}") in ("negative", "positive")
    assert alone(f"from transformers import pipeline\nimport kd\n{ask}") in ("negative", "positive")
    assert alone("import kd, sys; print('torch' in sys.modules or 'transformers' in sys.modules)") == "False"


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: kd.train(student="lstm"), "did you mean bilstm"),
        (lambda: kd.train(temprature=4), "did you mean temperature"),
        (lambda: kd.train(alpha=object()), "alpha: expected a number"),
        (lambda: kd.train(3), "expected options as texts"),
        (lambda: kd.train("trainer=cpu", directory=__file__), "directory: expected a folder in .* found a file"),
        (lambda: kd.sweep(seed=[]), "seed: expected at least one value to try, got an empty list"),
        (lambda: kd.train(student=["dan", "mlp"]), "student: expected one choice"),
        (lambda: kd.compose(["seed=0,1"]), "seed"),
        (lambda: kd.read_run("nowhere"), "found no status.json"),
        (lambda: kd.read_report("nowhere"), "found none"),
        (lambda: kd.nothing, "no attribute"),
    ],
)
def test_mistakes_are_one_sentence(call, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((KDError, AttributeError), match=sentence):
        call()


def test_compose_shows_what_train_would_use(options):
    config = kd.compose(options, student="dan", trainer={"max_epochs": 3}, loss=["soft_target", "dist"])
    assert (config.choices.student, config.trainer.max_epochs, list(config.loss)) == ("dan", 3, ["soft_target", "dist"])
    config.temperature = 7  # interpolations are kept
    assert config.balance.temperature.value == 7


TEXTS = [text for text, _ in make_reviews(160)]


def by_words(texts: list[str]) -> np.ndarray:
    """A teacher that counts a few words."""
    asked.extend(texts)
    good = np.array([any(word in text for word in ("wonderful", "charming", "moving", "funny")) for text in texts])
    return np.where(good[:, None], [[0.1, 0.9]], [[0.8, 0.2]])


asked: list[str] = []
SMALL = {"trainer": {"accelerator": "cpu", "max_epochs": 2}, "threads": 1, "callbacks": ["checkpoint"]}


def test_a_function_is_asked_for_each_text_once_and_never_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked.clear()
    names = ["bad", "good"]
    run = kd.distill(by_words, [*TEXTS, TEXTS[0], " "], None, "dan", label_names=names, directory="runs/one", **SMALL)
    assert sorted(asked) == sorted(TEXTS)
    config = RunDirectory(run.directory).config()
    assert (config["alpha"], config["teacher"]["_target_"]) == (1.0, "kd.teacher.answers.Answers")
    assert set(run.predict(TEXTS)["prediction"]) <= set(names)
    assert run_kd("reproduce", "runs/one") == 0 and sorted(asked) == sorted(TEXTS)
    answers = pandas.read_parquet(config["teacher"]["path"])
    assert list(answers.columns) == ["text", "probability_bad", "probability_good"] and len(answers) == len(TEXTS)
    again = kd.distill(config["teacher"]["path"], TEXTS, student="dan", directory="runs/two", **SMALL)
    assert again.metrics["test"]["accuracy"] == run.metrics["test"]["accuracy"] and len(asked) == len(TEXTS)


def test_a_model_teaches_as_a_folder_or_as_an_object(fine_tuned, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    teacher_folder, width = next(fine_tuned.rglob("config.json")).parent, "student.embedding_size=16"
    one = kd.distill(teacher_folder, TEXTS, None, "dan", width, directory="runs/folder", **SMALL)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(teacher_folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(teacher_folder)
    two = kd.distill((model, tokenizer), TEXTS, None, "dan", width, directory="runs/object", **SMALL)
    sums = [RunDirectory(run.directory).status()["products"]["model/model.safetensors"] for run in (one, two)]
    assert sums[0] == sums[1] and one.metrics["test"]["agreement"] == one.metrics["test"]["accuracy"]


@pytest.mark.parametrize(
    ("teacher", "more", "sentence"),
    [
        (lambda texts: [[1.0]] * len(texts), {}, "label_names: expected the classes"),
        (lambda texts: [[1.0]] * len(texts), {"label_names": ["a", "b"]}, "expected 2 probabilities a text, got 1"),
        (lambda texts: [[0.5, 0.5]], {"label_names": ["a", "b"]}, "an answer for each of 160 texts, got 1"),
        (lambda texts: [0.5] * len(texts), {"label_names": ["a", "b"]}, r"\[texts, classes\], got the shape"),
        (lambda texts: ["good"] * len(texts), {}, "expected probabilities as numbers"),
        (lambda texts: [{"a": 1.0}, *[{"b": 1.0}] * (len(texts) - 1)], {}, "a probability for each class"),
        (lambda texts: [[3.0, -2.0]] * len(texts), {"label_names": ["a", "b"]}, r"probabilities in \[0, 1\]"),
        ("nowhere", {}, "expected a model, a function or a file of answers, got 'nowhere'"),
        (7, {}, "expected a model, a function or a file of answers, got 7"),
        (by_words, {"label_names": ["a", "a"]}, "label_names: expected a list of different names"),
        (by_words, {"texts": "one text"}, "texts: expected a list of texts, got 'one text'"),
        (by_words, {"labels": ["a"]}, "labels: expected one for each of 160 texts, got 1"),
        (
            transformers.BertModel(
                transformers.BertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
            ),
            {},
            "expected a model with its tokenizer",
        ),
    ],
)
def test_wrong_teachers_are_refused_before_the_training(teacher, more, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KDError, match=sentence):
        kd.distill(teacher, **{"texts": TEXTS, "student": "dan", **SMALL, **more})
    assert not (tmp_path / "outputs" / "runs").exists()


@pytest.mark.slow
def test_the_examples_of_the_documentation_run(options, reviews_file, monkeypatch):
    """As they stand, one after the other; only the rows and the teacher are small."""
    from kd import api

    def small(function):
        # A function that teaches has no use for the options of a small model.
        return lambda *words, **more: function(*(options if "teacher=answers" not in words else ()), *words, **more)

    shutil.copy(reviews_file, "reviews.csv")
    pages = (Path(__file__).parents[1] / name for name in ("README.md", "docs/python.md"))
    blocks = [block for page in pages for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)]
    (readme, *others) = [block for block in blocks if "from transformers" not in block]
    assert "kd.train(" in readme and len(readme.splitlines()) <= 5 and len(others) == 5
    for name in ("train", "sweep"):
        monkeypatch.setattr(api, name, small(getattr(api, name)))
    names: dict = {}
    for block in (readme, *others):
        exec(block, names)
    assert isinstance(names["report"], kd.Report) and set(names["run"].predict("charming")["prediction"]) <= {
        "good",
        "bad",
    }
