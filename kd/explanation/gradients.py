"""What each word of a text adds to the log-odds of a label, by gradients at the word embeddings, with captum.

B texts, L tokens, E embedding width, C labels.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from kd.errors import KDError
from kd.explanation.attribution import Attribution, Model, words_of
from kd.export.classifier import padded
from kd.measure.inference import evaluating
from kd.models.fitted import FittedStudent
from kd.predictor import Predictor

AT_ONCE, TOKENS = 8, 1 << 12
"""Texts whose gradients are computed together, each read once a step; and tokens of all texts in one pass."""


def obstacle(model: Model) -> str | None:
    """Return why no gradient reaches the word embeddings of a model, in words; None if one does."""
    predictor = model.classifier
    if not isinstance(predictor, Predictor):
        return "an export has no gradients"
    network: Any = predictor.model
    if isinstance(network, FittedStudent):
        return "a bag of n-grams has no word embeddings"
    if not isinstance(predictor.tokenizer, PreTrainedTokenizerFast):
        return "its tokenizer does not return where its pieces lie in the text"
    seen: list[Tensor] = []
    hook = network.get_input_embeddings().register_forward_hook(lambda *call: seen.append(call[2].requires_grad_()))
    ids = torch.full((1, 3), predictor.tokenizer.pad_token_id)
    with torch.enable_grad(), evaluating(network):
        logits = network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    hook.remove()
    if not seen or seen[0].shape[:2] != ids.shape or not logits.requires_grad:
        return "no gradient reaches its word embeddings"
    found = torch.autograd.grad(logits.sum(), seen[0], allow_unused=True)[0]
    return "no gradient reaches its word embeddings" if found is None else None


def by_gradients(model: Model, texts: Sequence[str], labels: np.ndarray, method: str, steps: int) -> list[Attribution]:
    """Return the attributions of each text, summed over the embedding's width and over the pieces of each word.

    Args:
        method: ig for integrated gradients from a text of padding to the text; gradient for gradient times input.
        steps: points of the integral.

    Raises:
        KDError: the model gives no gradients, or captum is missing.

    Source: Sundararajan, Taly and Yan, Axiomatic Attribution for Deep Networks, 2017,
    https://arxiv.org/abs/1703.01365; Shrikumar et al., Not Just a Black Box, 2016, https://arxiv.org/abs/1605.01713
    """
    if reason := obstacle(model):
        raise KDError(f"--method {method}: expected a network, found that in the {model.name} {reason}; use occlusion")
    if importlib.util.find_spec("captum") is None:
        raise KDError("expected the package captum; install it: pip install 'kd[explain]', or use --method occlusion")
    predictor: Any = model.classifier
    found: dict[int, Attribution] = {}
    order = np.argsort([len(text) for text in texts], kind="stable")  # texts of similar length need little padding
    with evaluating(predictor.model):
        start = 0
        while start < len(texts):
            longest = min(predictor.max_length, max(len(texts[row]) for row in order[start : start + AT_ONCE]))
            rows = order[start : start + max(1, min(AT_ONCE, TOKENS // longest))].tolist()
            start += len(rows)
            each = _of_batch(predictor, model.order, [texts[row] for row in rows], labels[rows], method, steps)
            found |= zip(rows, each, strict=True)
    return [found[row] for row in range(len(texts))]


def _of_batch(
    predictor: Predictor, order: list[int], texts: Sequence[str], labels: np.ndarray, method: str, steps: int
) -> list[Attribution]:
    from captum.attr import LayerGradientXActivation, LayerIntegratedGradients

    network: Any = predictor.model
    tokenizer = predictor.tokenizer
    read = tokenizer(list(texts), truncation=True, max_length=predictor.max_length, return_offsets_mapping=True)
    padding: Any = tokenizer.pad_token_id
    ids, mask = map(torch.from_numpy, padded(read["input_ids"], padding))
    special = torch.ones_like(mask, dtype=torch.bool)
    for row, spans in enumerate(read["offset_mapping"]):
        special[row, : len(spans)] = torch.tensor([start == end for start, end in spans], dtype=torch.bool)
    nothing = torch.where(special, ids, padding)

    def odds(ids: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        logits = network(input_ids=ids, attention_mask=mask).logits[:, order]
        own = nn.functional.one_hot(labels, logits.shape[1]).bool()
        return logits[own] - logits.masked_fill(own, -torch.inf).logsumexp(dim=1)

    further = (mask, torch.from_numpy(labels))
    with torch.no_grad():
        whole, empty = odds(ids, *further), odds(nothing, *further)
    layer = network.get_input_embeddings().requires_grad_()
    if method == "ig":
        rows = max(len(ids), TOKENS // ids.shape[1])
        shares = LayerIntegratedGradients(odds, layer).attribute(
            ids,
            nothing,
            additional_forward_args=further,
            n_steps=steps,
            internal_batch_size=rows,
        )
    else:
        shares = LayerGradientXActivation(odds, layer).attribute(ids, additional_forward_args=further)
    tokens = shares.detach().sum(dim=2).double().numpy()
    change = (whole - empty).tolist()
    return [
        Attribution(
            in_words(text, spans, tokens[row]),
            float(whole[row]),
            (change[row], float(tokens[row].sum())) if method == "ig" else None,
        )
        for row, (text, spans) in enumerate(zip(texts, read["offset_mapping"], strict=True))
    ]


def in_words(text: str, spans: Sequence[tuple[int, int]], tokens: np.ndarray) -> np.ndarray:
    """Return ``[W]``: the sum of the pieces of each word. A piece belongs to the word of its first letter.

    >>> in_words("good films", [(0, 0), (0, 4), (4, 9), (9, 10)], np.array([9.0, 1.0, 2.0, 0.5]))
    array([1. , 2.5])
    """
    words = words_of(text)
    word_of = np.full(len(text), -1)
    for number, (start, end) in enumerate(words):
        word_of[start:end] = number
    found = np.zeros(len(words))
    for (start, end), value in zip(spans, tokens, strict=False):
        for word in word_of[start:end][word_of[start:end] >= 0][:1]:  # a piece may begin with a blank
            found[word] += value
    return found
