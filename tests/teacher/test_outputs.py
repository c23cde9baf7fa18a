"""What a run reads of its teacher: the right row for every output, from the cache and live, and one measured cost."""

import numpy as np
import pytest
import torch

from kd.data.batching import EncodedSplit, labels_of
from kd.features.feature import Feature
from kd.methods.distillation import cached_teacher
from kd.teacher.ensemble import ReadyEnsemble
from kd.teacher.outputs import TeacherOutputs
from kd.teacher.ready import ReadyTeacher
from tests.teacher.test_ready import FEATURES


def test_cached_logits_stand_at_their_rows(ready, splits, tmp_path):
    """Compare with one text at a time, in the order of the split: batching by length must not move a row."""
    outputs = TeacherOutputs(ready, tmp_path, cache=True)
    found = outputs.logits(splits.train, "train")
    for row in (0, 7, 31, 59):
        inputs = ready.tokenizer(splits.train["text"][row], return_tensors="pt")
        with torch.inference_mode():
            alone = ready.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[0]
        np.testing.assert_allclose(found[row], alone.numpy(), atol=1e-5)
    assert outputs.seconds["train"] > 0
    live = TeacherOutputs(ready, tmp_path, cache=False).logits(splits.train, "train")
    np.testing.assert_allclose(found, live, atol=1e-6)


def test_a_batch_holds_the_features_of_its_rows(ready, splits, tmp_path):
    """Token vectors are padded with zeros to the longest of the batch, as its tokens are."""
    encoded = EncodedSplit(ready.tokens(splits.train["text"]), labels_of(splits.train), 0)
    with_features = TeacherOutputs(ready, tmp_path, cache=True).attached_to(encoded, splits.train, "train", FEATURES)
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


def encoded(ready: ReadyTeacher, rows) -> EncodedSplit:
    return EncodedSplit(ready.tokens(rows["text"]), labels_of(rows), 0)


def test_a_run_without_a_teacher_has_no_outputs(splits, tmp_path):
    outputs = TeacherOutputs(None, tmp_path, cache=True)
    with pytest.raises(RuntimeError, match="expected a run with a teacher"):
        outputs.logits(splits.test, "test")


def test_a_live_teacher_brings_its_tokens(ready, splits, tmp_path):
    outputs = TeacherOutputs(ready, tmp_path, cache=False)
    found = outputs.attached_to(encoded(ready, splits.test), splits.test, "test")
    np.testing.assert_array_equal(found.teacher_tokens.values, ready.tokens(splits.test["text"]).values)
    assert found.teacher_padding == ready.tokenizer.pad_token_id and not found.columns
    assert outputs.source() is not cached_teacher and TeacherOutputs(ready, tmp_path, True).source() is cached_teacher


def test_features_come_without_logits_for_a_teacher_that_is_trained_further(ready, splits, tmp_path):
    outputs, feature = TeacherOutputs(ready, tmp_path, cache=True), Feature("hidden_states", 1, "mean")
    found = outputs.with_features(encoded(ready, splits.test), splits.test, "test", [feature])
    assert set(found.columns) == {f"teacher_{feature.column}"} and outputs.seconds["test"] > 0


def test_an_ensemble_is_not_one_model(ready, tmp_path):
    both = ReadyEnsemble({"one": ready, "two": ready}, "mean_logits")
    assert TeacherOutputs(ready, tmp_path, cache=True).single is ready
    with pytest.raises(ValueError, match="too many values"):
        _ = TeacherOutputs(both, tmp_path, cache=True).single
