"""Hints, composition, joint training, ensembles and assistants by command, and what `kd train` refuses of them."""

import copy
import csv
import json
import logging
import re
from pathlib import Path

import numpy as np
import pandas
import pyarrow.parquet
import pytest
import torch
import transformers
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from kd.cli import main
from kd.commands.train import configuration_folder
from kd.errors import KDError
from kd.methods.base import Method
from kd.run.directory import RunDirectory
from kd.training import single_run

COMPOSITION = ["method=composition"]
HINTS = ["method=hints", "loss=[soft_target,hint]"]
STAGED = ["method.feature_epochs=2", "trainer.max_epochs=4", "mapper=mlp", "method.mapper_learning_rate=0.01"]
BILSTM = ["student=bilstm", "student.hidden_size=12"]
PEERS = ["method=joint", "teacher=none", "tokenizer=words", "embeddings=random", "method.copies=1"]


@pytest.fixture(scope="module")
def data_options(reviews_file) -> list[str]:
    return [
        *("data=files", f"data.path={reviews_file}", "data.label_names=[negative,positive]", "data.max_length=24"),
        *("data.batch_size=16", "data.validation_share=0.2", "data.test_share=0.2", "student.embedding_size=16"),
        *("trainer=cpu", "trainer.max_epochs=2", "trainer.log_every_n_steps=1", "callbacks=[checkpoint]", "threads=1"),
    ]


def recipe(place: str, folder: Path) -> list[str]:
    """A teacher at this place of the configuration; in eight epochs it learns the reviews."""
    options = {"name_or_path": folder, "epochs": 8, "batch_size": 8, "learning_rate": 3e-3}
    return [f"{place}.{name}={value}" for name, value in options.items()]


@pytest.fixture(scope="module")
def teachers(teacher_folder) -> dict[str, list[str]]:
    """Options of the choices of a teacher."""
    small = ["teacher.model.hidden_size=16", "teacher.model.intermediate_size=32", "teacher.epochs=2"]
    return {
        "hf": ["teacher=hf", *recipe("teacher", teacher_folder)],
        "none": [],
        "ensemble": [
            "teacher=ensemble",
            *(option for name in ("first", "second") for option in recipe(f"teacher.members.{name}", teacher_folder)),
            "teacher.members.second.epochs=1",
        ],
        "assistant": ["teacher=assistant", *recipe("teacher.teacher", teacher_folder), *small],
    }


def run_kd(*arguments: object) -> int:
    return main(list(map(str, arguments)))


RUNS = {
    "hints": ("hf", [*HINTS, *STAGED, *BILSTM]),
    "composition": ("hf", [*COMPOSITION, *BILSTM, "method.layer=1", "optim.optimizer.lr=0.01"]),
    "joint": ("hf", ["method=joint", *BILSTM, "method.keep_partners=true", "balance.calibrate=true"]),
    "peers": ("none", [*PEERS, "student=dan", "+student@peers.other=bilstm", "method.keep_partners=true"]),
    "ensemble": ("ensemble", [*HINTS, *BILSTM, "method.features_from=all", "teacher.combine=confidence"]),
    "assistant": ("assistant", BILSTM),
}


@pytest.fixture(scope="module")
def trained(data_options, teachers, tmp_path_factory):
    """The run of a name, trained where it has not been yet; all of them share teachers and cache."""
    place = tmp_path_factory.mktemp("methods")

    def run(name: str, directory: str | None = None) -> RunDirectory:
        found = RunDirectory(place / "runs" / (directory or name))
        if directory or not found.status_file.exists():
            assert run_kd("train", *command(name), f"hydra.run.dir={found.path}") == 0
        return found

    def command(name: str) -> list[str]:
        teacher, choices = RUNS[name]
        return [*data_options, *teachers[teacher], *choices, f"outputs={place}"]

    run.command, run.place = command, place
    return run


def predictions(run: RunDirectory, name: str = "test") -> pandas.DataFrame:
    table = pyarrow.parquet.read_table(run.predictions_file).to_pandas()
    return table[table["split"] == name]


def texts_of(rows: pandas.DataFrame, reviews_file: Path) -> list[str]:
    lines = reviews_file.read_text().splitlines()
    found = [lines[line - 1].split(",") for line in rows["line"]]
    names = ["negative", "positive"]
    assert [label for _, label in found] == [names[label] for label in rows["label"]]
    return [text for text, _ in found]


def stored_columns(folder: Path, **facts: str) -> set[str]:
    metas = (json.loads(meta.read_text()) for meta in folder.glob("teacher_cache/*/meta.json"))
    return {meta["key"]["column"] for meta in metas if all(meta[name] == value for name, value in facts.items())}


def stored_teacher(trained, run: RunDirectory) -> Path:
    """The folder of the teacher that a run learnt from, as fine-tuning left it."""
    checksum = run.environment()["teacher"]["checksum"]
    facts = {meta.parent / "model": json.loads(meta.read_text()) for meta in trained.place.glob("teachers/*/*.json")}
    (found,) = [folder for folder, fact in facts.items() if fact["checksum"] == checksum]
    return found


# Each method from end to end


@pytest.mark.parametrize("name", ["hints", "composition", "joint", "peers"])
def test_the_saved_model_says_what_the_predictions_say(trained, reviews_file, name, capsys):
    run = trained(name)
    rows = predictions(run)
    texts, answers = texts_of(rows, reviews_file), np.stack(rows["logits"])
    names = np.array(["negative", "positive"])
    expected = names[answers.argmax(1)].tolist()
    capsys.readouterr()
    assert run_kd("predict", run.path, *texts[:20]) == 0
    found = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["prediction"] for row in found] == expected[:20]
    probabilities = torch.tensor(answers[:20]).softmax(1)[:, 1]
    np.testing.assert_allclose([float(row["probability_positive"]) for row in found], probabilities, atol=1e-4)
    assert run_kd("evaluate", run.path, "--split", "test", "--json") == 0
    accuracy = (answers.argmax(1) == rows["label"]).mean()
    assert json.loads(capsys.readouterr().out)["accuracy"] == pytest.approx(accuracy)
    assert run.metrics()["test"]["accuracy"] == pytest.approx(accuracy)
    classify = transformers.pipeline("text-classification", model=str(run.model))
    assert [answer["label"] for answer in classify(texts[:20])] == expected[:20]
    if name == "composition":
        assert len(set(expected)) == 2, "a test that tells something"


def test_hints_leave_the_teacher_and_the_mapper_behind(trained):
    run = trained("hints")
    config = json.loads((run.model / "config.json").read_text())
    assert config["model_type"] == "kd-bilstm"
    kept = load_file(run.model / "model.safetensors")
    student = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(run.model))
    assert set(kept) == set(student.state_dict())
    state = torch.load(run.checkpoints / "last.ckpt", weights_only=True)
    mappers = [name for name in state["state_dict"] if name.startswith("matchings.teacher.mappers.")]
    assert len(mappers) == 6 and not any("encoder" in name for name in state["state_dict"])
    rates = [group["initial_lr"] for group in state["optimizer_states"][0]["param_groups"]]
    assert sorted(set(rates)) == pytest.approx([0.001, 0.01])
    assert run.metrics()["layers"] == {"teacher/hint": [[2, 2]]}
    assert stored_columns(trained.place, split="train") >= {"logits", "hidden_states-2-mean"}
    assert "hidden_states-2-mean" not in stored_columns(trained.place, split="validation")


def test_stages_are_told_in_the_curves(trained):
    curves = pandas.read_csv(trained("hints").path / "metrics.csv").dropna(subset="train/loss/total")
    stages = curves.groupby("epoch")["train/stage"].unique().map(list).tolist()
    assert stages == [[1], [1], [2], [2]]
    features, task = curves[curves["epoch"] < 2], curves[curves["epoch"] >= 2]
    np.testing.assert_allclose(features["train/loss/total"], features["train/loss/hint"], rtol=1e-5)
    half = 0.5 * task["train/loss/label"] + 0.5 * task["train/loss/soft_target"]
    np.testing.assert_allclose(task["train/loss/total"], half, rtol=1e-5)
    assert task["train/loss/hint"].isna().all()
    first, second = features.groupby("epoch")["train/loss/hint"].mean()
    assert second < first


def test_interrupted_in_the_feature_stage_it_goes_on_where_it_was(trained, monkeypatch):
    whole, start = trained("hints"), Method.on_train_epoch_start

    def killed(self):
        if self.current_epoch == 1:
            raise RuntimeError("killed")
        start(self)

    with monkeypatch.context() as patch:
        patch.setattr(Method, "on_train_epoch_start", killed)
        with pytest.raises(RuntimeError, match="killed"):
            trained("hints", "broken")
    run = trained("hints", "broken")
    assert run.status()["state"] == "done" and not (run.path / "previous").exists()
    one, two = (load_file(found.model / "model.safetensors") for found in (whole, run))
    assert all(torch.equal(one[key], two[key]) for key in one)
    states = [torch.load(found.checkpoints / "last.ckpt", weights_only=True)["state_dict"] for found in (whole, run)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0]), "the mappers too"
    curves = [pandas.read_csv(found.path / "metrics.csv") for found in (whole, run)]
    pandas.testing.assert_frame_equal(curves[0], curves[1][curves[0].columns], check_exact=False, atol=1e-6)


def test_a_composition_says_how_much_of_the_teacher_is_in_it(trained):
    run = trained("composition")
    figures, weights = run.metrics(), load_file(run.model / "model.safetensors")
    inside = figures["teacher_inside"]
    for part in ("encoder", "mapper", "body"):
        size = sum(value.numel() for key, value in weights.items() if key.startswith(f"{part}."))
        assert inside[part] == size > 0
    assert figures["parameters"]["total"] == inside["encoder"] + inside["mapper"] + inside["body"]
    assert inside["layer"] == 1 and 0 < inside["encoder_ms"] < 10 * figures["latency"]["p50_ms"]
    config = json.loads((run.model / "config.json").read_text())
    assert config["model_type"] == "kd-mapped" and config["encoder"]["num_hidden_layers"] == 1
    state = torch.load(run.checkpoints / "best.ckpt", weights_only=True)["state_dict"]
    assert not any(name.startswith("student.encoder.") for name in state), "it never changes and stays out"
    before = load_file(stored_teacher(trained, run) / "model.safetensors")
    for name, value in weights.items():
        if name.startswith("encoder."):
            assert torch.equal(value, before[f"bert.{name.removeprefix('encoder.')}"]), "frozen"
    assert stored_columns(trained.place, split="validation") >= {"hidden_states-1-tokens"}


def test_the_teacher_learns_in_joint_training_and_the_stored_one_stays(trained):
    run = trained("joint")
    figures = run.metrics()["partners"]["teacher"]
    assert figures["validation_accuracy_before"] > 0.85 and 0 <= figures["validation_accuracy"] <= 1
    kept = load_file(run.path / "partners" / "teacher" / "model.safetensors")
    before = load_file(stored_teacher(trained, run) / "model.safetensors")
    assert before.keys() == kept.keys() and not torch.equal(before["classifier.weight"], kept["classifier.weight"])
    curves = pandas.read_csv(run.path / "metrics.csv")
    assert curves["val/teacher_accuracy"].count() == 2
    assert "train/loss/teacher_label" in curves
    rows = predictions(run, "validation")
    assert (np.stack(rows["teacher_logits"]).argmax(1) == rows["label"]).mean() == figures["validation_accuracy"]


@pytest.mark.parametrize(("name", "partners"), [("joint", {"teacher"}), ("peers", {"copy_1", "other"})])
def test_partners_are_kept_as_folders_that_load(trained, name, partners):
    run = trained(name)
    figures = run.metrics()["partners"]
    assert set(figures) == partners == {path.name for path in (run.path / "partners").iterdir()}
    text = "the film is wonderful"
    for partner in partners:
        folder = run.path / "partners" / partner
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert sum(p.numel() for p in model.parameters()) == figures[partner]["parameters"]["total"]
        inputs = tokenizer(text, return_tensors="pt")
        assert model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits.isfinite().all()
        (answer,) = transformers.pipeline("text-classification", model=str(folder))(text)
        assert answer["label"] in ("negative", "positive")


def test_peers_are_of_the_kinds_asked_for_and_start_apart(trained):
    run = trained("peers")
    kinds = {path.name: json.loads((path / "config.json").read_text()) for path in (run.path / "partners").iterdir()}
    assert kinds["copy_1"]["model_type"] == "kd-dan" and kinds["other"]["model_type"] == "kd-bilstm"
    student, copied = (load_file(p / "model.safetensors") for p in (run.model, run.path / "partners" / "copy_1"))
    assert student.keys() == copied.keys() and not torch.equal(student["head.weight"], copied["head.weight"])
    assert "agreement" not in run.metrics()["test"] and run.environment()["teacher"] is None


def test_each_member_of_an_ensemble_gives_its_features(trained):
    run = trained("ensemble")
    assert run.metrics()["layers"] == {"first/hint": [[2, 2]], "second/hint": [[2, 2]]}
    state = torch.load(run.checkpoints / "last.ckpt", weights_only=True)["state_dict"]
    one, two = (state[f"matchings.{name}.mappers.2-sentence.linear.weight"] for name in ("first", "second"))
    assert one.shape == two.shape == (32, 48) and not torch.equal(one, two), "each with its own mapper"
    facts = run.environment()["teacher"]
    assert facts["combine"] == "confidence" and set(facts["members"]) == {"first", "second"}
    assert facts["members"]["first"]["checksum"] != facts["members"]["second"]["checksum"], "two seeds"


def test_an_assistant_is_a_chain_in_one_command(trained, teacher_folder):
    run = trained("assistant")
    facts = [json.loads(meta.read_text()) for meta in trained.place.glob("teachers/*/teacher.json")]
    (assistant,) = [fact for fact in facts if fact["name"] == f"assistant of {teacher_folder}"]
    assert run.environment()["teacher"]["checksum"] == assistant["checksum"]
    cost = run.metrics()["teacher_cost"]
    assert cost["name"] == f"assistant of {teacher_folder}"
    assert cost["parameters"]["total"] < trained("hints").metrics()["teacher_cost"]["parameters"]["total"]
    assert stored_columns(trained.place, teacher=assistant["name"], split="test") == {"logits"}


def test_a_finished_run_is_found_done(trained, capsys):
    run = trained("composition")
    stamp = run.metrics_file.stat().st_mtime_ns
    assert run_kd("train", *trained.command("composition"), f"hydra.run.dir={run.path}") == 0
    assert f"already done: {run.path}" in capsys.readouterr().out
    assert run.metrics_file.stat().st_mtime_ns == stamp


def test_one_report_of_all_methods(trained, capsys):
    runs = [trained(name).path for name in RUNS]
    capsys.readouterr()
    assert run_kd("report", *runs) == 0
    printed = capsys.readouterr().out
    to_copy = [line for line in printed.splitlines() if line.startswith("  kd train ")]
    assert to_copy, "some of these runs have no baseline: the commands for them stand whole, to be copied"
    assert max(len(line) for line in printed.splitlines() if line not in to_copy) <= 80
    inside = trained("composition").metrics()["teacher_inside"]
    for word in ("distillation", "hints", "composition", "joint"):
        assert re.search(rf"^{word}\b", printed, re.MULTILINE), printed
    flowing = " ".join(printed.split())
    size = f"{inside['encoder'] / 1e6:.2f} M"
    assert re.search(rf"composition.*: it contains the teacher up to layer 1: {size} parameters", flowing), printed
    assert re.search(r"joint\b.*: its teacher went from \d+\.\d to \d+\.\d % on validation in joint training", flowing)
    assert "assistant" in flowing and "ensemble" in flowing


# Bad input: one sentence, exit code 2, no traceback, and no teacher trained for nothing

CONF = configuration_folder()
GROUPS = {path.parent.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml")}
WITHOUT_TEACHER = ["teacher=none", "tokenizer=words", "embeddings=random"]
TRANSFORMER = ["student=transformer", "student.hidden_size=16", "student.intermediate_size=32"]

MISTAKES = {
    # layers
    "cut above the teacher": (
        [*COMPOSITION, "method.layer=99"],
        "impossible layer number 99.* layer 1 to 2, .*set meth",
    ),
    "no such student layer": (
        [*HINTS, "method.layers=[[9,1]]"],
        r"no pair \[9, 1\]: .* the student has layers 0, 1, 2 and the teacher 0 to 2",
    ),
    "no such teacher layer": ([*HINTS, "method.layers=[[1,99]]"], r"no pair \[1, 99\]: .* the teacher 0 to 2"),
    "every_5": (
        [*HINTS, "method.layers=every_5"],
        "layers=every_5 needs 10 teacher layers .* has 2; choose layers=top",
    ),
    "uniform": (
        [*HINTS, "method.layers=uniform", "student=mlp", "student.num_layers=5"],
        "layers=uniform needs 6 teacher layers for the student's 6, and the teacher has 2; choose layers=top",
    ),
    "layers by number": ([*HINTS, "method.layers=3"], "method.layers: expected text or a list .*, got 3"),
    "layers null": ([*HINTS, "method.layers=null"], "method.layers: expected text or a list .*, got null"),
    "gradnorm on one term a stage": (
        ["method=hints", "loss=[hint]", "method.feature_epochs=1", "balance/weighting=gradnorm"],
        "found 'hint' alone in the feature stage and 'label' alone in the task stage; add a loss",
    ),
    "features kept of one stage": (
        [*HINTS, "method.keep_features=true"],
        "keep_features=true needs two stages, found method.feature_epochs=0; set both",
    ),
    "pairs for a composition": (
        [*COMPOSITION, "method.layers=every_9", "method.pooling=cls"],
        "method.layers: there is no such option; did you mean method.layer.*; method.pooling: there is no such option",
    ),
    "frozen peers": (
        [*PEERS, "method.frozen_layers=7"],
        "frozen_layers=7 has no effect with teacher=none; leave it at 0",
    ),
    "no partner schedule": (
        ["method=joint", "method.partner_schedule=null"],
        "method.partner_schedule: expected a schedule as in conf/optim/adamw.yaml, got null",
    ),
    "odd partner schedule": (
        ["method=joint", "method.partner_schedule.decay=exotic"],
        "method.partner_schedule.decay: expected linear, cosine or constant, got 'exotic'",
    ),
    "no schedule of the rate": (["optim.schedule=null"], "optim.schedule: expected a schedule .* got null"),
    "which start": (
        ["temperature=1", "balance/temperature=learned"],
        r"balance.temperature.start must be a number between .* correct balance.temperature.start",
    ),
    "which weight": (
        ["loss.soft_target.weight=.nan"],
        r"loss.soft_target.weight: expected a number of at least 0, got NaN",
    ),
    "layer for hints": (
        [*HINTS, "method.layer=1"],
        "method.layer: there is no such option; did you mean method.layers",
    ),
    # mappers
    "identity": ([*HINTS, "mapper=identity"], "identity mapper needs two equal widths, found 48 -> 32; make"),
    "pca to a wider student": (
        [*HINTS, "mapper=pca", "student=mlp", "student.hidden_size=64"],
        "PCA gives at most as many numbers as it reads, found 32 -> 64; use a width of at most 32, or another mapper",
    ),
    "rank": (
        [*HINTS, "mapper=low_rank", "mapper.rank=64"],
        "from width 48 to 32 can be at most 32, found 64; set a sm",
    ),
    "option of a mapper": (
        [*HINTS, "+mapper.depth=2"],
        "mapper.depth: there is no such option",
    ),
    # losses and where they belong
    "feature loss in distillation": (
        ["loss=[soft_target,hint]"],
        "loss 'hint' compares hidden states, and method=distillation only logits; use method=hints",
    ),
    "feature loss in joint training": (
        ["method=joint", "loss=[hint]"],
        "loss 'hint' compares hidden states, and method=joint only logits; choose losses on logits, or method=hi",
    ),
    "feature loss in the composition": (
        [*COMPOSITION, "loss=[soft_target,hint]"],
        "loss 'hint' compares hidden states, .* are the student's input; use losses on logits, loss=\\[\\], or",
    ),
    "no feature loss": (
        ["method=hints"],
        r"needs a loss on features, found only soft_target; add one, as in loss=\[soft_target,hint\]",
    ),
    "hints of nobody": (
        [*HINTS, *WITHOUT_TEACHER],
        "method=hints learns from a teacher, and teacher=none gives none",
    ),
    "token by token with other tokens": (
        ["method=hints", "loss=[tinybert_hidden]", "tokenizer=words", "embeddings=random"],
        "'tinybert_hidden' compares token by token, and student and teacher tokenise the texts differently; use ",
    ),
    "a composition cut at other lengths": (
        [*COMPOSITION, "teacher.max_length=12"],
        "found data.max_length=24 and teacher.max_length=12; set both",
    ),
    "attention of a BiLSTM": (
        ["method=hints", "loss=[tinybert_attention]"],
        "'tinybert_attention' needs attention maps; student 'kd-bilstm' gives only hidden states, logits; use hint",
    ),
    "unequal heads": (
        ["method=hints", "loss=[tinybert_attention]", *TRANSFORMER, "student.num_attention_heads=4"],
        "equally many attention heads, and the student has 4, the teacher 2; use minilm_v2, or a student with 2",
    ),
    # methods
    "sideways": ([*HINTS, "+method.direction=sideways"], "method.direction: there is no such option"),
    "feature stage of everything": (
        [*HINTS, "method.feature_epochs=2"],
        "feature_epochs=2 leaves none of trainer.max_epochs=2 for the task; lower the one or raise the other",
    ),
    "no number of epochs": (
        [*HINTS, "method.feature_epochs=null"],
        "feature_epochs: expected a whole number .* got null",
    ),
    "joint from the cache": (
        ["method=joint", "cache.use=true"],
        "joint trains the teacher, and cached outputs would no longer be its own; leave cache.use=false",
    ),
    "joint alone": (
        ["method=joint", *WITHOUT_TEACHER],
        r"joint needs a partner, got none; choose teacher=..., method.copies=1 or \+student@peers.NAME=...",
    ),
    "calibrated peers": ([*PEERS, "balance.calibrate=true"], "calibrate=true measures .* peers agree; set it to false"),
    "flow": (["method=joint", "method.flow=true"], "flow=true needs .*; set method.clean_targets=false"),
    "a peer called teacher": (
        ["method=joint", "+student@peers.teacher=dan", "embeddings=random"],
        "peers: 'teacher' and 'student' name other models of the run; choose other names",
    ),
    "a peer that is a word": (["method=joint", "+peers.other=dan"], r"as \+student@peers.NAME=dan adds one, got"),
    "peers null": (["method=joint", "peers=null"], "peers: expected keys with values, got null"),
    # balance
    "GradNorm without losses": (
        [*COMPOSITION, "loss=[]", "balance/weighting=gradnorm"],
        r"GradNorm .*, found only 'label'; add a transfer term, such as loss=\[soft_target\]",
    ),
    "GradNorm at alpha=0": (
        ["balance/weighting=gradnorm", "alpha=0"],
        "found only 'label'; give alpha between 0 and 1, add a loss, or set balance/weighting=constant",
    ),
    "GradNorm at alpha=1": (["balance/weighting=gradnorm", "alpha=1"], "found only 'soft_target'; give alpha"),
    "option of a weighting": (["+balance.weighting.speed=1"], "balance.weighting.speed: there is no such option"),
    "temperature down to 0": (
        ["balance/temperature=linear", "balance.temperature.end=0"],
        "balance/temperature: expected temperatures above 0, got 0 to 4",
    ),
    "alpha above 1": (["balance/alpha=linear", "balance.alpha.start=1.5"], r"alpha: .* in \[0, 1\], got 0.5 to 1.5"),
    "nothing to learn": (["alpha=1", "loss.soft_target.weight=0"], "their weights are all 0; raise one of them"),
    "rows of a feature loss": (
        [*HINTS, "loss=[hint,rkd]", "balance/confidence=gold"],
        "loss 'hint' has no weight for each; use losses on logits",
    ),
    "no schedule": (["balance.alpha=null"], "balance.alpha: expected a choice, got null"),
    # cache
    "no cache at all": (["cache=false"], "cache: expected keys with values, got false; leave the group as it is"),
    "no room": (
        [*HINTS, "cache.max_gb=0.000001"],
        "94 train rows would take 6.02e-06 GB, and cache.max_gb=1e-06 is the limit; raise it, ask for fewer layers or",
    ),
    "no room for tokens": (
        [*COMPOSITION, "cache.max_gb=0.000001"],
        r"\(hidden_states-2-tokens\) .* is the limit; raise",
    ),
    # several teachers
    "a member of one teacher": (
        [*HINTS, "method.features_from=nobody"],
        "features_from=nobody names a member of an ensemble, and there is one teacher; leave it null",
    ),
    "a cut ensemble": (
        [*COMPOSITION, "teacher=ensemble"],
        "takes layers of one teacher, got an ensemble; choose a single teacher",
    ),
    "a joint ensemble": (["method=joint", "teacher=ensemble"], "trains one teacher, got an ensemble; choose a single"),
    "a live ensemble": (
        ["teacher=ensemble", "cache.use=false"],
        "^an ensemble reads its outputs from the cache, member by member; leave cache.use=true$",
    ),
    "recipe of a member": (
        ["teacher=ensemble", "teacher.members.second.epochs=0"],
        "teacher.members.second.epochs: expected a whole number of at least 1, got 0",
    ),
    "no member": (
        ["teacher=ensemble", "+teacher.members.third=hf"],
        r"teacher.members.third: expected a teacher, got hf; teacher@teacher.members.third=hf makes it one",
    ),
    "recipe of an assistant": (["teacher=assistant", "teacher.alpha=2"], r"teacher.alpha: .* in \[0, 1\], got 2"),
    "assistant without positions": (
        ["teacher=assistant", "teacher.model.max_position_embeddings=8"],
        "reads at most 8 tokens, got 24; set data.max_length=8 or less",
    ),
    "a cold assistant": (
        ["teacher=assistant", "method=joint", "method.teacher_start=cold"],
        "starts from a backbone, and teacher=assistant has none; use warm",
    ),
}


@pytest.fixture(scope="module")
def composed(data_options, teachers):
    """Hydra's part of `kd train`, done once for a set of choices: it takes most of the time of a refusal."""
    known: dict[tuple[str, ...], DictConfig] = {}
    for handler in [found for found in logging.root.handlers if type(found) is logging.StreamHandler]:
        logging.root.removeHandler(handler)  # Hydra's, of the commands before, into streams that are closed by now

    def configuration(changes: list[str], outputs: Path) -> DictConfig:
        choices = [change for change in changes if change.split("=")[0].split("@")[0].lstrip("+") in GROUPS]
        values = [change for change in changes if change not in choices]
        (teacher,) = [c.split("=")[1] for c in choices if c.startswith("teacher=")] or ["hf"]
        student = [] if any(c.startswith("student=") for c in choices) else BILSTM
        if (key := (*choices, *student)) not in known:
            width = "student.embedding_size" if "student=transformer" not in choices else "no such option"
            options = [o for o in data_options if not o.startswith("student.") or o.startswith(width)]
            with initialize_config_dir(str(CONF), version_base="1.3"):
                options = [*options, *teachers[teacher], *choices, *student]
                known[key] = compose("config", options, return_hydra_config=True)
        found = copy.deepcopy(known[key])
        for change in values:
            place, _, value = change.partition("=")
            OmegaConf.update(found, place.lstrip("+"), yaml.safe_load(value), force_add=True)
        found.outputs, found.hydra.runtime.output_dir = str(outputs / "outputs"), str(outputs)
        HydraConfig.instance().set_config(found)
        with open_dict(found):
            del found.hydra
        return found

    yield configuration
    HydraConfig.instance().cfg = None


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_refused_before_the_teacher_trains(composed, tmp_path, name):
    changes, message = MISTAKES[name]
    with pytest.raises(KDError) as refused:
        single_run.train(composed(changes, tmp_path), tmp_path)
    said = str(refused.value)
    assert re.search(message, said), said
    assert "\n" not in said and len(said) < 330
    assert not (tmp_path / "outputs" / "teachers").exists() and not (tmp_path / "outputs" / "teacher_cache").exists()
    status = RunDirectory(tmp_path).status()
    assert status["state"] == "failed" and said in status["reason"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["loss=[soft_target,hint]"], "use method=hints$"),
        (["cache=false"], "got false; leave the group as it is$"),
        (["mapper=null"], "null|None"),
        (["balance=null"], "null|None"),
    ],
)
def test_the_command_says_it_in_one_sentence(data_options, teachers, tmp_path, monkeypatch, capsys, changes, message):
    monkeypatch.delenv("KD_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)
    assert run_kd("train", *data_options, *teachers["hf"], *BILSTM, *changes) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error and error.count("kd train: ") == 1
    assert re.search(message, error.strip().splitlines()[-1]), error
    assert not Path("outputs/teachers").exists()
