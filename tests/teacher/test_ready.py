"""A trained teacher: what its cache key contains, and that every feature is stored at its row."""

import dataclasses
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from kd.commands import cache
from kd.errors import KDError
from kd.features.feature import Feature
from kd.measure.cost import parameter_counts
from kd.teacher.ready import MOST_PADDING, ReadyTeacher, Wanted, tight_batches


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


def test_the_precision_is_part_of_the_checksum_and_caches_are_not_pickled(ready):
    half = dataclasses.replace(ready, precision="bf16-true")
    assert half.checksum == f"{ready.checksum}+bf16-true" and half.model.dtype == torch.bfloat16
    assert {"checksum", "model"} <= vars(half).keys() and pickle.loads(pickle.dumps(half)) == half
    assert vars(pickle.loads(pickle.dumps(half))).keys() == {field.name for field in dataclasses.fields(half)}


def test_parameters_of_a_model(ready):
    model = ready.model
    counts = parameter_counts(model)
    assert counts["total"] == sum(p.numel() for p in model.parameters())
    tables = model.bert.embeddings
    words = sum(
        t.weight.numel() for t in (tables.word_embeddings, tables.position_embeddings, tables.token_type_embeddings)
    )
    assert counts["without_embeddings"] == counts["total"] - words


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
    ready.cached(Wanted(splits.train["text"], "train", outputs, FEATURES))
    return ready, outputs


def test_cached_features_stand_at_their_rows(cached, splits):
    """Compare with one text at a time, in half precision: neither batching nor padding moves or changes a vector."""
    ready, outputs = cached
    found, seconds = ready.cached(Wanted(splits.train["text"], "train", outputs, FEATURES))
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


def test_logits_after_features_store_nothing_and_further_features_only_themselves(teacher_folder, splits, tmp_path):
    ready = ReadyTeacher("tiny", teacher_folder, 24, 8, {})
    first, second = Feature("hidden_states", 1, "mean"), Feature("hidden_states", 2)
    texts = splits.test["text"]
    ready.cached(Wanted(texts, "test", tmp_path, [first]))
    before = stored(tmp_path)
    assert set(before) == {"logits", first.column}
    assert set(ready.cached(Wanted(texts, "test", tmp_path))[0]) == {"logits"} and stored(tmp_path) == before
    ready.cached(Wanted(texts, "test", tmp_path, [second, first]))
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
        ready.cached(Wanted(texts, "test", tmp_path, features, max_gb=0.99 * expected))
    assert stored(tmp_path) == {} and "labelling" not in caplog.text
    said = str(refused.value)
    assert f"15 test rows would take {expected:.3g} GB, and cache.max_gb={0.99 * expected:g} is the limit" in said
    assert "hidden_states-1-tokens, keys-2-tokens, values-1-cls" in said and "cache.use=false" in said
    with caplog.at_level("INFO", logger="kd"):
        ready.cached(Wanted(texts, "test", tmp_path, features, max_gb=1.01 * expected))
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == f"teacher: storing features of 15 test rows takes {expected:.3g} GB"
    assert lines[1].startswith("teacher: labelling 15 test rows (once): logits, hidden_states-1-tokens")
    size = sum(file.stat().st_size for file in tmp_path.glob("teacher_cache/*/values.npy"))
    assert size == 1e9 * expected + 2 * 4 * 15 + 4 * 128, "with logits and the heads of four files"
    caplog.clear()
    ready.cached(Wanted(texts, "test", tmp_path, features, max_gb=0))
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
        ready.cached(Wanted(splits.test["text"], "test", tmp_path, [Feature("hidden_states", 1, "mean")]))
    assert stored(tmp_path) == {} and not [warning for warning in recwarn if "overflow" in str(warning.message)]
    ready.cached(Wanted(splits.test["text"], "test", tmp_path, [Feature("hidden_states", 0, "mean")]))
    assert set(stored(tmp_path)) == {"logits", "hidden_states-0-mean"}


def test_cache_ls_shows_the_columns(cached, capsys, monkeypatch):
    """The table fits 80 columns, and no figure or name is truncated."""
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


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 512), min_size=1, max_size=80), st.integers(1, 20))
def test_labelled_batches_have_every_row_and_little_padding(lengths, most_rows):
    lengths = np.array(lengths)
    batches = tight_batches(lengths, most_rows)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for rows in batches:
        assert len(rows) <= most_rows
        assert 1 - lengths[rows].sum() / (len(rows) * lengths[rows].max()) < MOST_PADDING
