"""The bag of n-grams: what it computes inside the model, exports, saves and refuses."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from transformers import AutoModelForSequenceClassification, pipeline

from kd.contract import supported_outputs
from kd.data.batching import tokenize
from kd.data.tokenizers import WordTokenizer
from kd.errors import KDError, OptionError
from kd.models import Bag, BagConfig, ngrams
from kd.models.fitted import Rows
from kd.models.pretrained import new_student
from kd.options.declared import options_of
from tests.conftest import make_reviews
from tests.models.test_ngrams import SPECIAL, WORDS, ragged

CONF = Path(__file__).parents[2] / "conf" / "student" / "bag.yaml"
TOKENS = [chr(97 + number) * (1 + number % 4) for number in range(WORDS)]
WEIGHTINGS = ("naive_bayes", "tfidf")
KINDS = [(weighting, labels) for weighting in WEIGHTINGS for labels in (2, 3)]


def fitted(weighting="naive_bayes", labels=2, **options) -> Bag:
    """A bag fitted to random rows."""
    generator = np.random.default_rng(0)
    rows = [generator.integers(0, WORDS, generator.integers(1, 9)).tolist() for _ in range(60)]
    targets = np.eye(labels)[generator.integers(0, labels, 60)]
    sizes = {"vocab_size": WORDS, "num_labels": labels, "pad_token_id": 0}
    bag = new_student(BagConfig(**sizes, weighting=weighting, **options)).eval()
    bag.spell(TOKENS, SPECIAL)
    bag.fit(Rows(ragged(rows), targets), Rows(ragged(rows[:20]), targets[:20]), SPECIAL)
    return bag


KINDS += [("naive_bayes", 2, "characters"), ("tfidf", 3, "characters")]
BAGS = {kind: fitted(*kind[:2], characters=(2, 3) if len(kind) > 2 else 0) for kind in KINDS}


def expected_logits(bag: Bag, rows: list[list[int]]) -> np.ndarray:
    """Count the n-grams outside the model, and multiply with its table."""
    keys = bag.keys[:-1].numpy()
    spelling = None if bag.spelling is None else bag.spelling.numpy()
    found = ngrams.occurrences(ragged(rows), SPECIAL, bag.config.ngrams, WORDS + 1, spelling)
    features = ngrams.counts(found, keys, len(rows)).toarray()
    if bag.config.weighting == "naive_bayes":
        features = (features > 0).astype(float)
    else:
        scaled = features * bag.rarity[:-1].numpy()
        features = features / np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-9)
    return features @ bag.table.weight[:-1].detach().numpy() + bag.bias.detach().numpy()


def padded(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    return ragged(rows).padded(range(len(rows)), 0)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=40)
@given(rows=st.lists(st.lists(st.integers(0, WORDS - 1), max_size=12), min_size=1, max_size=6))
def test_the_model_counts_as_the_fit_does(kind, rows):
    bag = BAGS[kind]
    np.testing.assert_allclose(bag(*padded(rows)).logits.detach().numpy(), expected_logits(bag, rows), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_and_other_rows_change_no_logit(kind):
    bag, rows = BAGS[kind], [[5, 6, 7, 5, 6], [8], [], [9, 9, 9]]
    ids, mask = padded(rows)
    logits = bag(ids, mask).logits
    assert torch.equal(bag(ids + 3 * (1 - mask), mask).logits, logits)
    torch.testing.assert_close(bag(ids).logits, logits)  # no other token has the padding's id
    torch.testing.assert_close(bag(*(torch.nn.functional.pad(part, (0, 4)) for part in (ids, mask))).logits, logits)
    left = [torch.nn.functional.pad(part[:1], (2, 0)) for part in (ids, mask)]
    torch.testing.assert_close(bag(*left).logits, logits[:1])
    for row in range(len(rows)):
        torch.testing.assert_close(bag(ids[row : row + 1], mask[row : row + 1]).logits, logits[row : row + 1])
    empty = bag(torch.zeros(2, 0), torch.zeros(2, 0)).logits  # as a tokenizer returns ["", ""], in floats
    torch.testing.assert_close(empty, bag.bias.expand(2, -1))


def test_tfidf_is_scikit_learns_pipeline():
    reviews = make_reviews(200)
    texts, labels = [text for text, _ in reviews], np.array([label for _, label in reviews])
    tokenizer = WordTokenizer(min_count=1)(texts)
    sizes = {"vocab_size": len(tokenizer), "num_labels": 2, "pad_token_id": tokenizer.pad_token_id}
    bag = Bag(BagConfig(**sizes, weighting="tfidf", inverse_penalty=2.0))
    train = Rows(tokenize(tokenizer, texts[:150], 64), np.eye(2)[labels[:150]])
    bag.fit(train, train, frozenset(tokenizer.all_special_ids))
    split = lambda text: tokenizer.tokenize(text)  # noqa: E731
    vectorizer = TfidfVectorizer(tokenizer=split, token_pattern=None, ngram_range=(1, 2)).fit(texts[:150])
    model = LogisticRegression(C=2.0, max_iter=1000).fit(vectorizer.transform(texts[:150]), labels[:150])
    encoded = tokenizer(texts[150:], padding=True, return_tensors="pt")
    found = bag(encoded["input_ids"], encoded["attention_mask"]).logits.softmax(1).detach().numpy()
    # kd leaves out an n-gram with a word that the training rows do not have, and so does scikit-learn.
    np.testing.assert_allclose(found, model.predict_proba(vectorizer.transform(texts[150:])), atol=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_exports_with_dynamic_batch_and_length(kind):
    bag = BAGS[kind]
    batch, length = torch.export.Dim("batch", min=1), torch.export.Dim("length", min=1)
    shape = {0: batch, 1: length}

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bag = bag

        def forward(self, input_ids, attention_mask):
            return self.bag(input_ids, attention_mask).logits

    shapes = {"input_ids": shape, "attention_mask": shape}
    program = torch.export.export(Logits().eval(), padded([[5, 6, 7, 8], [9, 9]]), dynamic_shapes=shapes)
    assert not any("searchsorted" in str(node.target) for node in program.graph.nodes)
    for rows in ([[3]], [[5, 6, 7, 5, 6, 11, 4], [8, 3], []], [[1, 2, 3]] * 5):
        torch.testing.assert_close(program.module()(*padded(rows)), bag(*padded(rows)).logits)


@pytest.mark.parametrize("kind", KINDS)
def test_saves_loads_and_works_in_a_pipeline(kind, tmp_path):
    bag = BAGS[kind]
    bag.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert type(loaded) is Bag and loaded.config.inverse_penalty == bag.config.inverse_penalty
    rows = padded([[5, 6, 7, 8], [9, 9]])
    assert torch.equal(loaded(*rows).logits, bag(*rows).logits)
    tokenizer = WordTokenizer(min_count=1)(["a fine film", "a dull film"])
    tokenizer.save_pretrained(tmp_path)
    classify = pipeline("text-classification", model=str(tmp_path), device="cpu")
    together = classify(["a fine film", "", "unseen"], batch_size=3)
    for text, answer in zip(["a fine film", "", "unseen"], together, strict=True):
        assert classify(text)[0]["score"] == pytest.approx(answer["score"], abs=1e-6)


def test_characters_add_features_and_a_word_of_equal_letters_shares_them():
    plain, spelling = fitted(), fitted(characters=[1, 3])
    assert spelling.config.features > plain.config.features and spelling.config.spelled == spelling.spelling.shape[1]
    assert (spelling.keys[:-1] < -1).sum() == spelling.config.features - plain.config.features
    assert plain.spelling is None and "spelling" not in plain.state_dict()


def test_rare_ngrams_are_left_out_and_the_penalty_is_kept():
    assert fitted(min_count=4).config.features < fitted().config.features
    assert fitted(ngrams=1).config.features == WORDS - len(SPECIAL)
    assert fitted(inverse_penalty=0.5).config.inverse_penalty == 0.5
    assert supported_outputs(fitted().config) == {"logits"}


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(KDError, match=r"student\.min_count=99 leaves no n-gram of 60 training rows; lower it"):
        fitted(min_count=99)
    with pytest.raises(OptionError, match="ngrams must be at most 4 for a vocabulary of 30000 tokens, found 5"):
        BagConfig(vocab_size=30000, ngrams=5)
    with pytest.raises(OptionError, match="weighting must be naive_bayes or tfidf, found 'counts'"):
        BagConfig(weighting="counts")


def test_every_option_is_declared_with_a_meaning_and_the_default_of_its_yaml():
    node = dict(OmegaConf.load(CONF).student)
    assert node.pop("_target_") == "kd.models.bag.BagConfig"
    options = options_of(BagConfig)
    assert {"vocab_size", "pad_token_id", "features", "spelled", *node} == set(options)
    assert all(option.meaning for option in options.values())
    assert node == {key: getattr(BagConfig(), key) for key in node}
