"""Several teachers as one: how their outputs are combined, and that each labels a row once."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kd.data.batching import EncodedSplit, labels_of
from kd.data.sources import Splits
from kd.errors import KDError, OptionError
from kd.features.feature import Feature
from kd.options.declared import options_of
from kd.teacher.ensemble import COMBINATIONS, Ensemble, ReadyEnsemble
from kd.teacher.outputs import TeacherOutputs
from kd.teacher.ready import ReadyTeacher, Wanted
from kd.teacher.teacher import Teacher
from tests.conftest import make_reviews, make_teacher
from tests.teacher.conftest import RECIPE, split

GENERATOR = np.random.default_rng(0)
LOGITS = 2 * GENERATOR.normal(size=(3, 12, 4))
LABELS = np.array([0, 1, 2, 3, 0, 1, 2, 3, -100, -100, 0, 1])


def softmax(values: np.ndarray) -> np.ndarray:
    exponentials = np.exp(values - values.max())
    return exponentials / exponentials.sum()


def by_hand(combine: str, logits: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """Probabilities ``[N, C]``, row by row and member by member."""
    members, rows, _ = logits.shape
    found = []
    for row in range(rows):
        probabilities = [softmax(logits[k, row]) for k in range(members)]
        label = -100 if labels is None else labels[row]
        weights = [1 / members] * members
        if combine == "mean_logits":
            found.append(softmax(sum(logits[k, row] for k in range(members)) / members))
            continue
        if combine == "confidence" and label >= 0 and members > 1:
            losses = [np.exp(-np.log(p[label])) for p in probabilities]
            weights = [(1 - loss / sum(losses)) / (members - 1) for loss in losses]
        if combine == "correct" and label >= 0:
            right = [float(p.argmax() == label) for p in probabilities]
            weights = [r / sum(right) for r in right] if any(right) else weights
        assert sum(weights) == pytest.approx(1)
        found.append(sum(weight * p for weight, p in zip(weights, probabilities, strict=True)))
    return np.array(found)


def test_a_member_that_does_not_fit_is_refused_before_any_is_trained(teacher, splits, tmp_path):
    long = replace(teacher, max_length=65)
    with pytest.raises(KDError, match="reads at most 64 tokens, got 65"):
        Ensemble({"first": teacher, "second": long}).ready(splits, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("known", ["labels", "some", "none"])
@pytest.mark.parametrize("members", [1, 2, 3])
@pytest.mark.parametrize("combine", COMBINATIONS)
def test_combinations_are_their_formulas(combine, members, known):
    labels = {"labels": np.where(LABELS < 0, 3, LABELS), "some": LABELS, "none": None}[known]
    found = COMBINATIONS[combine](LOGITS[:members], labels)
    assert found.shape == (12, 4)
    probabilities = np.array([softmax(row) for row in found])
    np.testing.assert_allclose(probabilities, by_hand(combine, LOGITS[:members], labels), atol=1e-6)


def test_log_probabilities_can_be_tempered_as_logits_can():
    """For one member, the result differs only by a constant for each row, which softmax removes at any temperature."""
    for combine in COMBINATIONS:
        difference = COMBINATIONS[combine](LOGITS[:1], LABELS) - LOGITS[0]
        np.testing.assert_allclose(difference, np.broadcast_to(difference[:, :1], difference.shape), atol=1e-5)


def test_combinations_differ_where_members_disagree():
    """Two of three members are wrong: the means follow them, the combinations that read the label do not."""
    logits = np.array([[[4.0, 0.0]], [[0.0, 4.0]], [[0.0, 4.0]]])
    label = np.array([0])
    predicted = {combine: COMBINATIONS[combine](logits, label).argmax() for combine in COMBINATIONS}
    assert predicted["mean_probability"] == predicted["mean_logits"] == 1 and predicted["correct"] == 0
    shares = [np.exp(COMBINATIONS[combine](logits, label))[0, 0] for combine in ("mean_probability", "confidence")]
    assert shares[1] > shares[0] + 0.1
    none_right = np.array([[[4.0, 0.0]], [[2.0, 0.0]]])
    one, two = (COMBINATIONS[c](none_right, np.array([1])) for c in ("correct", "mean_probability"))
    np.testing.assert_array_equal(one, two)


def test_extreme_logits_stay_finite():
    logits = np.array([[[1000.0, 0.0]], [[0.0, 1000.0]]])
    for combine in COMBINATIONS:
        for label in (0, 1, -100):
            found = COMBINATIONS[combine](logits, np.array([label]))
            assert not np.isnan(found).any() and np.isfinite(found.max())


# On disk


@pytest.fixture(scope="module")
def splits() -> Splits:
    rows = make_reviews(60)
    train = [(text, -100 if place % 7 == 0 else label) for place, (text, label) in enumerate(rows[:40])]
    return Splits(split(train), split(rows[40:50]), split(rows[50:]), ["negative", "positive"], {})


def add_separator(folder: Path) -> None:
    """Make the tokenizer put a second separator at the end."""
    file = folder / "tokenizer.json"
    backend = json.loads(file.read_text())
    backend["post_processor"]["single"].append({"SpecialToken": {"id": "[SEP]", "type_id": 0}})
    file.write_text(json.dumps(backend))


def leaning(folder: Path, bias: list[float]) -> Path:
    """Give the random model a bias, so that its predictions differ from those of the others."""
    weights = load_file(folder / "model.safetensors")
    save_file(
        weights | {"classifier.bias": torch.tensor(bias)}, folder / "model.safetensors", metadata={"format": "pt"}
    )
    return folder


@pytest.fixture(scope="module")
def members(tmp_path_factory) -> dict[str, ReadyTeacher]:
    """Three members with different biases; the second reads one more token of each text."""
    leanings = {"first": [1.5, 0.0], "second": [0.0, 2.0], "third": [0.5, 0.0]}
    folders = {
        name: leaning(make_teacher(tmp_path_factory.mktemp(name), seed=seed), bias)
        for seed, (name, bias) in enumerate(leanings.items())
    }
    add_separator(folders["second"])
    return {name: ReadyTeacher(f"tiny-{name}", folder, 24, 8, {}) for name, folder in folders.items()}


def caches(outputs: Path) -> dict[str, int]:
    return {meta.parent.name: meta.stat().st_mtime_ns for meta in outputs.glob("teacher_cache/*/meta.json")}


def test_each_member_reads_its_own_tokens_and_a_further_one_relabels_nothing(members, splits, tmp_path, caplog):
    texts = splits.train["text"]
    lengths = [member.tokens(texts).lengths for member in members.values()]
    np.testing.assert_array_equal(lengths[1], lengths[0] + 1)
    two = ReadyEnsemble({name: members[name] for name in ("first", "second")}, "mean_logits")
    found, seconds = two.cached(Wanted(texts, "train", tmp_path))
    alone = [member.live_logits(texts) for member in members.values()]
    np.testing.assert_allclose(found["logits"], (alone[0] + alone[1]) / 2, atol=1e-5)
    assert found["logits"].dtype == np.float32 and seconds > 0

    before = caches(tmp_path)
    assert len(before) == 2
    caplog.clear()
    with caplog.at_level("INFO", logger="kd"):
        found, _ = ReadyEnsemble(members, "mean_logits").cached(Wanted(texts, "train", tmp_path))
    np.testing.assert_allclose(found["logits"], sum(alone) / 3, atol=1e-5)
    assert len(caches(tmp_path)) == 3 and before.items() <= caches(tmp_path).items()
    assert caplog.text.count("labelling 40 train rows") == 1
    caplog.clear()
    for combine in COMBINATIONS:
        ReadyEnsemble(members, combine).cached(Wanted(texts, "train", tmp_path, labels=labels_of(splits.train)))
    members["second"].cached(Wanted(texts, "train", tmp_path))
    assert len(caches(tmp_path)) == 3 and "labelling" not in caplog.text


@pytest.mark.parametrize("combine", ["confidence", "correct"])
def test_labels_are_read_only_for_training_rows(members, splits, tmp_path, combine):
    outputs = TeacherOutputs(ReadyEnsemble(members, combine), tmp_path, cache=True)
    for name in ("train", "validation", "test"):
        rows = getattr(splits, name)
        logits = np.stack([member.live_logits(rows["text"]) for member in members.values()]).astype(np.float64)
        without, by_label = (COMBINATIONS[combine](logits, labels) for labels in (None, labels_of(rows)))
        np.testing.assert_allclose(without, COMBINATIONS["mean_probability"](logits))
        expected, other = (by_label, without) if name == "train" else (without, by_label)
        encoded = EncodedSplit(members["first"].tokens(rows["text"]), labels_of(rows), 0)
        columns = [outputs.logits(rows, name), outputs.attached_to(encoded, rows, name).columns["teacher_logits"]]
        for column in columns:
            np.testing.assert_allclose(column, expected, atol=1e-5)
            assert abs(column - other).max() > 0.1
    assert set(outputs.seconds) == {"train", "validation", "test"}


def test_features_come_from_the_member_that_they_name(members, splits, tmp_path):
    ensemble, texts = ReadyEnsemble(members, "mean_probability"), splits.train["text"]
    chosen = [Feature("hidden_states", 1, "mean", "second"), Feature("hidden_states", 2, None, "third")]
    found, _ = ensemble.cached(Wanted(texts, "train", tmp_path, chosen))
    assert set(found) == {"logits", "second.hidden_states-1-mean", "third.hidden_states-2-tokens"}
    own, _ = members["second"].cached(Wanted(texts, "train", tmp_path, [Feature("hidden_states", 1, "mean")]))
    np.testing.assert_array_equal(found["second.hidden_states-1-mean"], own["hidden_states-1-mean"])
    other, _ = members["third"].cached(Wanted(texts, "train", tmp_path, [Feature("hidden_states", 2)]))
    np.testing.assert_array_equal(found["third.hidden_states-2-tokens"].values, other["hidden_states-2-tokens"].values)
    assert len(caches(tmp_path)) == 5, "three times logits and two features: a member's name is no part of a key"

    every = [Feature("hidden_states", 1, "mean", name) for name in members]
    encoded = EncodedSplit(members["first"].tokens(texts), labels_of(splits.train), 0)
    batch = TeacherOutputs(ensemble, tmp_path, cache=True).attached_to(encoded, splits.train, "train", every)[[3, 1]]
    vectors = [batch[f"teacher_{name}.hidden_states-1-mean"] for name in members]
    assert all(vector.shape == (2, 32) for vector in vectors)
    assert not any(np.allclose(vectors[0], vector) for vector in vectors[1:])


def test_it_gives_outputs_only_from_the_cache(members):
    with pytest.raises(KDError, match=r"^teacher=ensemble gives outputs only from the cache.*; set cache\.use=true$"):
        ReadyEnsemble(members, "mean_logits").live()


def test_its_cost_is_that_of_all_members(members):
    timed = [replace(members["first"], facts={"training_seconds": seconds}) for seconds in (2.0, 3.0)]
    costs = ReadyEnsemble(dict(zip("ab", timed, strict=True)), "mean_probability").cost()
    single = timed[0].cost()
    assert costs["parameters"] == {key: 2 * count for key, count in single["parameters"].items()}
    assert costs["model_bytes"] == 2 * single["model_bytes"] and costs["training_seconds"] == 5.0
    assert costs["name"] == "tiny-first+tiny-first"


def test_members_and_combination_change_its_checksum(members):
    ensemble = ReadyEnsemble(members, "mean_probability")
    others = [ReadyEnsemble(members, "mean_logits"), ReadyEnsemble({"first": members["first"]}, "mean_probability")]
    assert len({ensemble.checksum, *(other.checksum for other in others)}) == 3
    assert ReadyEnsemble(dict(members), "mean_probability").checksum == ensemble.checksum


# By configuration


@pytest.fixture(scope="module")
def teachers(members) -> dict[str, Teacher]:
    return {name: Teacher(str(member.folder), False, 24, **RECIPE) for name, member in members.items()}


def test_the_student_starts_from_the_first_member(teachers):
    ensemble = Ensemble({name: teachers[name] for name in ("second", "first")})
    assert ensemble.tokenizer is teachers["second"].tokenizer and ensemble.max_length == 24
    np.testing.assert_array_equal(ensemble.word_table, teachers["second"].word_table)
    assert ensemble.config is teachers["second"].config
    np.testing.assert_array_equal(ensemble.tokens(["a film"]).values, teachers["second"].tokens(["a film"]).values)


def test_the_sources_of_features_are_chosen_by_name(teachers):
    ensemble = Ensemble(teachers)
    assert ensemble.sources() == {"first": teachers["first"]}
    assert ensemble.sources("third") == {"third": teachers["third"]}
    assert ensemble.sources("all") == teachers
    with pytest.raises(KDError, match="expected all or one of first, second, third, got 'nobody'"):
        ensemble.sources("nobody")


def test_members_are_made_ready_one_by_one(teachers, splits, tmp_path):
    tuned = replace(teachers["first"], fine_tune=True)
    first = tuned.ready(splits, tmp_path)
    stamp = (first.folder / "model.safetensors").stat().st_mtime_ns
    ready = Ensemble({"old": tuned, "taken": teachers["second"]}, "correct").ready(splits, tmp_path)
    assert (first.folder / "model.safetensors").stat().st_mtime_ns == stamp, "found, not trained again"
    assert ready.members[0].folder == first.folder and ready.members[1].folder == teachers["second"].backbone
    assert ready.facts["combine"] == "correct" and ready.facts["members"]["old"]["epochs"] == 1
    assert ready.facts["members"]["taken"] == {}


def test_what_makes_no_ensemble_is_refused(teachers):
    with pytest.raises(
        KDError, match=r"needs members, got none; add one as in \+teacher@teacher\.members\.NAME=minilm"
    ):
        Ensemble({}, "mean_logits")
    expected = "mean_probability, mean_logits, confidence or correct"
    with pytest.raises(OptionError, match=f"^combine must be {expected}, found 'best'"):
        Ensemble(teachers, "best")
    assert options_of(Ensemble)["combine"].expected == expected and all(map(expected.__contains__, COMBINATIONS))
    with pytest.raises(KDError, match=r"^teacher\.members\.all: expected one model, found several; list them"):
        Ensemble({"all": Ensemble(teachers)})
