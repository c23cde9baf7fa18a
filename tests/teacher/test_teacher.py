"""What the names of teachers and caches depend on, and how a damaged teacher is met."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file

from kd.commands import cache
from kd.data.batching import EncodedSplit, labels_of
from kd.data.sources import Splits
from kd.errors import KDError
from kd.features.feature import Feature
from kd.measure.cost import latency, parameter_counts
from kd.methods.distillation import cached_teacher
from kd.runtime.devices import Devices
from kd.teacher.label_order import check_label_order
from kd.teacher.outputs import TeacherOutputs
from kd.teacher.ready import ReadyTeacher
from kd.teacher.teacher import Teacher, labelled_rows
from tests.conftest import make_reviews, make_teacher


def split(rows, labels=None) -> Dataset:
    texts, gold = zip(*rows, strict=True)
    gold = list(gold) if labels is None else labels
    return Dataset.from_dict({"text": list(texts), "label": gold, "line": list(range(len(texts)))})


@pytest.fixture(scope="module")
def splits() -> Splits:
    rows = make_reviews(90)
    return Splits(split(rows[:60]), split(rows[60:75]), split(rows[75:]), ["negative", "positive"], {})


@pytest.fixture
def teacher(teacher_folder) -> Teacher:
    recipe = {"epochs": 1, "batch_size": 16, "learning_rate": 1e-3, "weight_decay": 0.01, "warm_up": 0.1}
    more = {"gradient_clip": 1.0, "precision": "32-true", "seed": 0, "labelling_batch_size": 8}
    return Teacher(str(teacher_folder), True, 24, **recipe, **more)


@pytest.fixture
def ready(teacher_folder) -> ReadyTeacher:
    return ReadyTeacher("tiny", teacher_folder, 24, 8, {})


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 2},
        {"batch_size": 8},
        {"learning_rate": 2e-3},
        {"seed": 1},
        {"max_length": 12},
        {"precision": "bf16-true"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_recipe_changes_the_teachers_name(teacher, splits, change):
    assert dataclasses.replace(teacher, **change).key(splits) != teacher.key(splits)


def test_how_it_is_asked_does_not_change_the_teachers_name(teacher, splits):
    assert dataclasses.replace(teacher, labelling_batch_size=64).key(splits) == teacher.key(splits)


def test_backbone_and_rows_change_the_teachers_name(teacher, splits, tmp_path):
    other = dataclasses.replace(teacher, name_or_path=str(make_teacher(tmp_path / "other", seed=1)))
    assert other.key(splits) != teacher.key(splits)
    flipped = split(
        list(zip(splits.train["text"], splits.train["label"], strict=True)), [1 - y for y in splits.train["label"]]
    )
    assert teacher.key(dataclasses.replace(splits, train=flipped)) != teacher.key(splits)
    shorter = splits.train.select(range(59))
    assert teacher.key(dataclasses.replace(splits, train=shorter)) != teacher.key(splits)


def test_unlabelled_rows_do_not_change_the_teachers_name(teacher, splits):
    rows = [*zip(splits.train["text"], splits.train["label"], strict=True), ("a new scene", -100)]
    assert teacher.key(dataclasses.replace(splits, train=split(rows))) == teacher.key(splits)
    assert len(labelled_rows(split(rows))) == 60


def test_a_damaged_teacher_is_trained_anew(teacher, splits, tmp_path, caplog):
    first = teacher.ready(splits, tmp_path)
    weights = first.folder / "model.safetensors"
    before = {name: value.clone() for name, value in load_file(weights).items()}
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    again = teacher.ready(splits, tmp_path)
    assert "damaged" in caplog.text
    after = load_file(again.folder / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before), (
        "the recipe and the seed give the same weights"
    )


@pytest.fixture(scope="module")
def steady(teacher_folder, tmp_path_factory) -> Path:
    """A backbone without dropout, which every rank draws for itself."""
    folder = Path(shutil.copytree(teacher_folder, tmp_path_factory.mktemp("steady") / "backbone"))
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("sharded", [False, True], ids=["ddp", "fsdp"])
def test_two_devices_fine_tune_as_one_does(teacher, steady, splits, tmp_path, sharded, caplog):
    """The same steps of as many rows, whoever holds them; 60 rows leave the last step with 12."""
    caplog.set_level("INFO")
    teacher = dataclasses.replace(teacher, name_or_path=str(steady), epochs=2, gradient_clip=0.5)
    one = teacher.ready(splits, tmp_path / "one")
    two = teacher.ready(splits, tmp_path / "two", Devices("cpu", 2, sharded))
    assert "trained by 2 of 2 devices, 8 rows each" in caplog.text
    assert two.folder.parent.name == one.folder.parent.name, "the name is that of the recipe"
    assert two.facts["rows"] == 60 and two.facts["validation_accuracy"] == one.facts["validation_accuracy"]
    weights, whole = (load_file(ready.folder / "model.safetensors") for ready in (two, one))
    assert weights.keys() == whole.keys()
    assert all(torch.allclose(weights[name], whole[name], atol=1e-4) for name in whole)
    before = load_file(steady / "model.safetensors")
    assert any(not torch.allclose(whole[name], before[name], atol=1e-3) for name in before if name in whole)


def test_as_many_devices_train_as_share_a_step_evenly(teacher, splits, tmp_path, caplog):
    caplog.set_level("INFO")
    dataclasses.replace(teacher, batch_size=9).ready(splits, tmp_path, Devices("cpu", 2))
    assert "trained by 1 of 2 devices, 9 rows each" in caplog.text


def test_a_device_that_fails_is_told_and_leaves_no_teacher(teacher, splits, tmp_path):
    teacher = dataclasses.replace(teacher, learning_rate=1e30, gradient_clip=0.0)
    with pytest.raises(KDError, match=r"over 2 devices failed: rank .* is not finite at step"):
        teacher.ready(splits, tmp_path, Devices("cpu", 2))
    assert not list((tmp_path / "teachers").glob("*/"))


def test_teacher_tokenizer_texts_and_length_change_the_cache_key(ready, splits, tmp_path):
    texts = splits.test["text"]
    key = ready.key(texts).digest
    assert ready.key(list(texts)).digest == key
    assert ready.key([*texts[:-1], texts[-1] + " x"]).digest != key
    assert ready.key([*texts[1:], texts[0]]).digest != key
    assert dataclasses.replace(ready, max_length=12).key(texts).digest != key
    assert dataclasses.replace(ready, batch_size=1).key(texts).digest == key

    other = Path(shutil.copytree(ready.folder, tmp_path / "weights"))
    weights = load_file(other / "model.safetensors")
    weights["classifier.bias"][0] += 1e-3
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    assert dataclasses.replace(ready, folder=other).key(texts).digest != key

    other = Path(shutil.copytree(ready.folder, tmp_path / "tokenizer"))
    backend = json.loads((other / "tokenizer.json").read_text())
    backend["normalizer"]["lowercase"] = False
    (other / "tokenizer.json").write_text(json.dumps(backend))
    assert dataclasses.replace(ready, folder=other).key(texts).digest != key


def test_cached_logits_stand_at_their_rows(ready, splits, tmp_path):
    """Against one text at a time, in the order of the split: batching by length must not move a row."""
    answers = TeacherOutputs(ready, tmp_path, cache=True)
    found = answers.of(splits.train, "train")
    for row in (0, 7, 31, 59):
        inputs = ready.tokenizer(splits.train["text"][row], return_tensors="pt")
        with torch.inference_mode():
            alone = ready.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[0]
        np.testing.assert_allclose(found[row], alone.numpy(), atol=1e-5)
    assert answers.seconds["train"] > 0
    live = TeacherOutputs(ready, tmp_path, cache=False).of(splits.train, "train")
    np.testing.assert_allclose(found, live, atol=1e-6)


def test_label_order_is_checked_beyond_chance():
    labels = np.arange(200) % 2
    right = np.eye(2)[labels]
    assert check_label_order("t", right, labels, ["neg", "pos"]) == 1.0
    with pytest.raises(KDError, match=r"right on 0\.0% .* 100\.0% .*\[pos, neg\]"):
        check_label_order("t", right[:, ::-1], labels, ["neg", "pos"])
    guesses = np.eye(2)[np.random.default_rng(0).integers(0, 2, 200)]
    assert 0.3 < check_label_order("t", guesses, labels, ["neg", "pos"]) < 0.7, "a useless teacher is not a mix-up"


def test_parameters_and_latency_of_a_model(ready):
    model = ready.model
    counts = parameter_counts(model)
    assert counts["total"] == sum(p.numel() for p in model.parameters())
    tables = model.bert.embeddings
    words = sum(
        t.weight.numel() for t in (tables.word_embeddings, tables.position_embeddings, tables.token_type_embeddings)
    )
    assert counts["without_embeddings"] == counts["total"] - words
    model.train()
    times = latency(model, ready.tokenizer, ["the film is dull", "a very warm story"], 24, warm_up=2, timed=20)
    assert 0 < times["p50_ms"] <= times["p95_ms"] and times["threads"] == torch.get_num_threads()
    assert model.training, "the mode before is restored"


# Features

POOLINGS = ("mean", "cls", None)
FEATURES = [
    *(Feature("hidden_states", layer, pooling) for layer in (0, 1, 2) for pooling in POOLINGS),
    *(Feature(output, layer) for output in ("queries", "keys", "values") for layer in (1, 2)),
]


@torch.inference_mode()
def by_hand(ready: ReadyTeacher, text: str) -> dict[Feature, np.ndarray]:
    """Every feature of one text alone: no batch, no padding, no recording."""
    inputs = ready.tokenizer(text, return_tensors="pt")
    known = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    states = [state[0] for state in ready.model(**known, output_hidden_states=True).hidden_states]
    found = {}
    for layer, state in enumerate(states):
        for pooling, value in {"mean": state.mean(0), "cls": state[0], None: state}.items():
            found[Feature("hidden_states", layer, pooling)] = value.numpy()
    for layer in (1, 2):
        attention = ready.model.bert.encoder.layer[layer - 1].attention.self
        for output, map in (("queries", "query"), ("keys", "key"), ("values", "value")):
            found[Feature(output, layer)] = getattr(attention, map)(states[layer - 1]).numpy()
    return found


def stored(outputs: Path) -> dict[str, int]:
    """When each column of the cache was written."""
    found = {}
    for meta in outputs.glob("teacher_cache/*/meta.json"):
        found[json.loads(meta.read_text())["key"]["column"]] = meta.stat().st_mtime_ns
    return found


@pytest.fixture(scope="module")
def cached(teacher_folder, splits, tmp_path_factory) -> tuple[ReadyTeacher, Path]:
    """All features of the training rows, in a cache."""
    ready, outputs = ReadyTeacher("tiny", teacher_folder, 24, 8, {}), tmp_path_factory.mktemp("features")
    ready.cached(splits.train["text"], "train", outputs, FEATURES)
    return ready, outputs


def test_cached_features_stand_at_their_rows(cached, splits):
    """Against one text at a time, in half precision: neither batching nor padding moves or changes a vector."""
    ready, outputs = cached
    found, seconds = ready.cached(splits.train["text"], "train", outputs, FEATURES)
    assert set(found) == {"logits", *(feature.column for feature in FEATURES)} and seconds > 0
    for row in (0, 7, 31, 59):
        for feature, expected in by_hand(ready, splits.train["text"][row]).items():
            column = found[feature.column]
            values = column[row]
            assert values.dtype == np.float16
            np.testing.assert_allclose(values, expected, rtol=2e-3, atol=2e-3, err_msg=feature.column)
    assert (
        sorted({str(feature.column) for feature in FEATURES if feature.pooling is None})[0] == "hidden_states-0-tokens"
    )


def test_a_batch_holds_the_features_of_its_rows(cached, splits):
    """Token vectors are padded with zeros to the longest of the batch, as its tokens are."""
    ready, outputs = cached
    encoded = EncodedSplit(ready.tokens(splits.train["text"]), labels_of(splits.train), 0)
    with_features = TeacherOutputs(ready, outputs, cache=True).attached_to(encoded, splits.train, "train", FEATURES)
    batch = with_features[[31, 0, 7]]
    live_logits, live = ready.live(FEATURES)(batch, FEATURES)
    logits, found = cached_teacher(batch, FEATURES)
    torch.testing.assert_close(logits, live_logits, atol=1e-5, rtol=1e-5)
    real = batch["attention_mask"].bool()
    assert not real.all()
    for feature in FEATURES:
        one, two = found[feature].float(), live[feature]
        if feature.pooling is None:
            assert not one[~real].any()
            one, two = one[real], two[real]
        torch.testing.assert_close(one, two, atol=2e-3, rtol=2e-3, msg=feature.column)


def test_logits_after_features_store_nothing_and_further_features_only_themselves(teacher_folder, splits, tmp_path):
    ready = ReadyTeacher("tiny", teacher_folder, 24, 8, {})
    first, second = Feature("hidden_states", 1, "mean"), Feature("hidden_states", 2)
    texts = splits.test["text"]
    ready.cached(texts, "test", tmp_path, [first])
    before = stored(tmp_path)
    assert set(before) == {"logits", first.column}
    assert set(ready.cached(texts, "test", tmp_path)[0]) == {"logits"} and stored(tmp_path) == before
    ready.cached(texts, "test", tmp_path, [second, first])
    after = stored(tmp_path)
    assert set(after) == {"logits", first.column, second.column} and before.items() <= after.items()


def test_the_size_of_features_is_said_before_and_refused_above_the_limit(teacher_folder, splits, tmp_path, caplog):
    ready = ReadyTeacher("tiny", teacher_folder, 24, 8, {})
    texts, features = (
        splits.test["text"],
        [Feature("hidden_states", 1), Feature("keys", 2), Feature("values", 1, "cls")],
    )
    tokens = len(ready.tokens(texts).values)
    expected = 2 * 32 * (2 * tokens + len(texts)) / 1e9
    with caplog.at_level("INFO", logger="kd"), pytest.raises(KDError) as refused:
        ready.cached(texts, "test", tmp_path, features, max_gb=0.99 * expected)
    assert stored(tmp_path) == {} and "labelling" not in caplog.text
    said = str(refused.value)
    assert f"15 test rows would take {expected:.3g} GB, and cache.max_gb={0.99 * expected:g} is the limit" in said
    assert "hidden_states-1-tokens, keys-2-tokens, values-1-cls" in said and "cache.use=false" in said
    with caplog.at_level("INFO", logger="kd"):
        ready.cached(texts, "test", tmp_path, features, max_gb=1.01 * expected)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == f"teacher: storing features of 15 test rows takes {expected:.3g} GB"
    assert lines[1].startswith("teacher: labelling 15 test rows (once): logits, hidden_states-1-tokens")
    size = sum(file.stat().st_size for file in tmp_path.glob("teacher_cache/*/values.npy"))
    assert size == 1e9 * expected + 2 * 4 * 15 + 4 * 128, "with logits and the heads of four files"
    caplog.clear()
    ready.cached(texts, "test", tmp_path, features, max_gb=0)
    assert "storing" not in caplog.text, "what is there takes no more room"


def test_features_beyond_half_precision_are_refused(teacher_folder, splits, tmp_path, recwarn):
    from transformers import BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained(teacher_folder)
    with torch.no_grad():
        model.bert.encoder.layer[0].output.LayerNorm.bias[3] = 70_000
    folder = Path(shutil.copytree(teacher_folder, tmp_path / "loud"))
    model.save_pretrained(folder)
    ready = ReadyTeacher("loud", folder, 24, 8, {})
    with pytest.raises(KDError, match=r"hidden_states-1-mean are not finite for rows \[.*float16.*cache.use=false"):
        ready.cached(splits.test["text"], "test", tmp_path, [Feature("hidden_states", 1, "mean")])
    assert stored(tmp_path) == {} and not [warning for warning in recwarn if "overflow" in str(warning.message)]
    ready.cached(splits.test["text"], "test", tmp_path, [Feature("hidden_states", 0, "mean")])
    assert set(stored(tmp_path)) == {"logits", "hidden_states-0-mean"}


def test_cache_ls_shows_the_columns(cached, capsys, monkeypatch):
    """At 80 columns, with no figure and no name cut off."""
    monkeypatch.setenv("COLUMNS", "80")
    _, outputs = cached
    assert cache.main(["ls", "--outputs", str(outputs)]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80 and "…" not in printed
    assert printed.splitlines()[1].split() == ["key", "split", "column", "rows", "MB", "s"]
    meta = json.loads(next((outputs / "teacher_cache").glob("*/meta.json")).read_text())
    assert printed.startswith(f"teacher {meta['teacher']}\n")
    for column in ("logits", *(feature.column for feature in FEATURES)):
        assert f" {column} " in printed, printed


def test_one_teacher_has_no_member_to_choose(teacher):
    assert teacher.sources(None) == teacher.sources("all") == {"": teacher}
    with pytest.raises(
        KDError, match="features_from=second names a member of an ensemble, and there is one teacher; leave"
    ):
        teacher.sources("second")
