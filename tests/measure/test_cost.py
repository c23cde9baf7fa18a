import time
from itertools import groupby
from operator import itemgetter

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from kd.measure.cost import LEAST_TURNS, Reader, latency, parameter_counts, speedup, times_in_turns


@pytest.fixture
def model():
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    return BertForSequenceClassification(BertConfig(vocab_size=2000, max_position_embeddings=64, **sizes))


def test_parameters_by_hand(model):
    words_positions_types = 8 * (2000 + 64 + 2)
    found = parameter_counts(model)
    assert found["total"] == found["trainable"] == sum(p.numel() for p in model.parameters())
    assert found["total"] - found["without_embeddings"] == words_positions_types
    model.bert.embeddings.requires_grad_(False)
    normalisation = 2 * 8
    assert found["total"] - parameter_counts(model)["trainable"] == words_positions_types + normalisation


def readers(teacher_folder, *models) -> list[list[Reader]]:
    tokenizer = AutoTokenizer.from_pretrained(teacher_folder)
    return [[Reader(model, tokenizer, 16)] for model in models]


def test_sides_take_turns_with_the_same_texts_and_get_their_mode_back(model, teacher_folder):
    other, calls = BertForSequenceClassification(model.config).eval(), []
    for name, one in (("first", model.train()), ("second", other)):
        one.register_forward_hook(
            lambda _, __, inputs, ___, name=name: calls.append((name, inputs["input_ids"].shape[1])), with_kwargs=True
        )
    sides = readers(teacher_folder, model, other)
    found = times_in_turns(sides, ["a film", "the plot is dull", "a"], turns=3, calls=2)
    assert model.training and not other.training and [len(times) for times in found] == [3, 3]
    blocks = [[length for _, length in block] for _, block in groupby(calls, itemgetter(0))]
    texts = [[4, 6], [4, 6], [3, 4], [6, 3]]  # the first turn warms up
    for own, (first, *block) in zip(np.repeat(texts, 2, axis=0).tolist(), blocks, strict=True):
        assert first == own[0] and block == own * (len(block) // 2), "the first call of a block is not counted"
    assert all((own > 0).all() and len(own) % 2 == 0 for times in found for own in times)


def test_a_fast_side_reads_the_texts_until_its_turn_is_as_long(model, teacher_folder):
    fast = BertForSequenceClassification(model.config)
    model.register_forward_hook(lambda *_: time.sleep(0.15))
    slow_times, fast_times = times_in_turns(readers(teacher_folder, model, fast), ["a film"], turns=2, calls=1)
    assert {len(times) for times in slow_times} == {1}
    assert all(len(times) > 3 and times.sum() > 10 for times in fast_times)


def test_models_of_one_side_run_one_after_another(model, teacher_folder):
    other, calls = BertForSequenceClassification(model.config), []
    for name, one in (("first", model), ("second", other)):
        one.register_forward_hook(lambda *_, name=name: calls.append(name))
    side = [reader for (reader,) in readers(teacher_folder, model, other)]
    ((times,),) = times_in_turns([side], ["a film"], turns=1, calls=3)
    assert times.shape == (3,) and calls == ["first", "second"] * 8  # 4 warm up, and 1 is not counted


def test_no_turn_begins_after_the_limit(model, teacher_folder):
    (times,) = times_in_turns(readers(teacher_folder, model), ["a"], calls=1, seconds=0)
    assert len(times) == LEAST_TURNS


def test_latency_by_hand():
    found = latency([np.arange(1.0, 41.0), np.arange(41.0, 101.0)])
    assert found == {"p50_ms": 50.5, "p95_ms": pytest.approx(95.05), "threads": torch.get_num_threads()}


def test_load_that_slows_both_sides_leaves_their_ratio():
    load = [1.0, 1.0, 7.0, 1.0, 3.0, 1.0]
    student, teacher = ([np.full(calls, ms * slow) for slow in load] for calls, ms in ((50, 2.0), (5, 20.0)))
    assert speedup(student, teacher) == {"ratio": 10.0, "low": 10.0, "high": 10.0, "turns": 6}
