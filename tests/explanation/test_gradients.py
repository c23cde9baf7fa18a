"""Gradients at the word embeddings, on the tiny student and its teacher."""

import numpy as np
import pytest
import torch

from kd.classifier import load
from kd.errors import KDError
from kd.explanation.attribution import Model, occlusion, words_of
from kd.explanation.gradients import by_gradients, obstacle
from kd.models.bag import Bag, BagConfig
from kd.models.bow import MLP, MLPConfig
from kd.models.hashed import HashedNGrams, HashedNGramsConfig
from kd.predictor import Predictor
from kd.run.directory import RunDirectory
from kd.run.own_teacher import own_teacher

NAMES = ["negative", "positive"]
TEXTS = ["the film is wonderful", "a dull , dull plot and the story isn't moving", "awful"]
LABELS = np.array([1, 0, 1])


@pytest.fixture(scope="module")
def models(trained_pair):
    run = trained_pair / "dan"
    return {
        "student": Model("student", load(run), NAMES),
        "teacher": Model("teacher", load(own_teacher(RunDirectory(run))), NAMES),
    }


@pytest.mark.parametrize("name", ["student", "teacher"])
def test_integrated_gradients_add_up_to_the_change_of_the_log_odds(models, name):
    model = models[name]
    found = by_gradients(model, TEXTS, LABELS, "ig", 64)
    assert [len(each.values) for each in found] == [len(words_of(text)) for text in TEXTS]
    assert np.allclose([each.odds for each in found], model.log_odds(TEXTS, LABELS), atol=1e-4)
    for each in found:
        assert each.change[1] == pytest.approx(each.values.sum(), abs=1e-5), "no influence is lost between the words"
        assert each.gap < 0.03 * max(1.0, abs(each.change[0]))


def test_few_steps_leave_a_gap_that_many_close(models):
    few, many = (by_gradients(models["teacher"], TEXTS, LABELS, "ig", steps) for steps in (1, 64))
    assert sum(each.gap for each in few) > 5 * sum(each.gap for each in many)


def linear(models, layers=0):
    """A student whose log-odds are linear in the mean of the word vectors."""
    torch.manual_seed(0)
    tokenizer = models["student"].classifier.tokenizer
    config = MLPConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, num_layers=layers, num_labels=2)
    config.id2label = dict(enumerate(NAMES))
    return Model("student", Predictor(MLP(config).eval(), tokenizer, 24), NAMES)


def test_both_methods_agree_where_the_model_is_linear(models):
    model = linear(models)
    ig, gradient = (by_gradients(model, TEXTS, LABELS, method, 4) for method in ("ig", "gradient"))
    for one, other in zip(ig, gradient, strict=True):
        assert np.abs(one.values).max() > 1e-4 and np.allclose(one.values, other.values, atol=1e-6)
        assert other.change is None and one.gap < 1e-6
    reversed_ = by_gradients(Model("student", model.classifier, NAMES[::-1]), TEXTS, 1 - LABELS, "ig", 4)
    assert np.allclose(reversed_[0].values, ig[0].values, atol=1e-6)


def test_a_frozen_word_table_is_explained_too(models):
    model = linear(models)
    model.classifier.model.embedding.requires_grad_(False)
    assert obstacle(model) is None and np.abs(by_gradients(model, TEXTS, LABELS, "gradient", 1)[0].values).any()


def test_words_beyond_the_length_that_is_read_have_no_influence(models):
    long = " ".join(["wonderful"] * 40)
    (found,) = by_gradients(models["student"], [long], LABELS[:1], "ig", 4)
    assert len(found.values) == 40 and found.values[:10].all() and not found.values[-10:].any()
    assert not occlusion(models["student"], [long], LABELS[:1])[0].values[-10:].any()


def test_models_without_word_embeddings_are_named(models):
    tokenizer = models["student"].classifier.tokenizer
    sizes = {"vocab_size": len(tokenizer), "num_labels": 2, "pad_token_id": tokenizer.pad_token_id}
    hashed, bag = HashedNGrams(HashedNGramsConfig(**sizes, buckets=50)), Bag(BagConfig(**sizes))
    for network, reason in ((bag, "a bag of n-grams has no word embeddings"), (hashed, "no gradient reaches its word")):
        network.config.id2label = dict(enumerate(NAMES))
        model = Model("student", Predictor(network, tokenizer, 24), NAMES)
        assert reason in obstacle(model)
        with pytest.raises(KDError, match=f"--method ig: .*{reason}.*use occlusion"):
            by_gradients(model, TEXTS, LABELS, "ig", 4)
