"""The attention terms, against numpy in float64, text by text without padding, and against what must hold of them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch.nn import functional

from kd.contract import Answer
from kd.errors import KDError
from kd.losses.attention import AttentionTransfer, MiniLM, MiniLMv2, TinyBertAttention, attention_transfer
from kd.options.declared import options_of

LENGTHS = (5, 3, 1)
PAIRS = 2

# --- the same formulas, written again in numpy: one list of texts [H, length, d] (or [length, d]) a tensor


def log_maps(first, second):
    return log_softmax(np.einsum("hid,hjd->hij", first, second) / np.sqrt(first.shape[-1]), axis=-1)


def mean_kl(maps_of_texts):
    """Mean over heads and tokens, all texts together."""
    rows = [(np.exp(t) * (t - s)).sum(-1) for s, t in maps_of_texts]
    return sum(r.sum() for r in rows) / sum(r.size for r in rows)


def relations(x, y):
    """x, y: (student's texts, teacher's texts)."""
    return mean_kl(
        [(log_maps(xs, ys), log_maps(xt, yt)) for xs, ys, xt, yt in zip(x[0], y[0], x[1], y[1], strict=True)]
    )


def tinybert_formula(s, t):
    squares = [
        (
            np.einsum("hid,hjd->hij", qs, ks) / np.sqrt(qs.shape[-1])
            - np.einsum("hid,hjd->hij", qt, kt) / np.sqrt(qt.shape[-1])
        )
        ** 2
        for qs, ks, qt, kt in zip(s["queries"], s["keys"], t["queries"], t["keys"], strict=True)
    ]
    return sum(square.sum() for square in squares) / sum(square.size for square in squares)


def minilm_formula(s, t):
    q, k, v = ((s[name], t[name]) for name in ("queries", "keys", "values"))
    return relations(q, k) + relations(v, v)


def recut(text, heads):
    joined = np.concatenate(list(text), axis=-1)
    return np.stack(np.split(joined, heads, axis=-1))


def minilm_v2_formula(heads):
    def formula(s, t):
        x = [([recut(text, heads) for text in s[n]], [recut(text, heads) for text in t[n]]) for n in s]
        return sum(relations(both, both) for both in x)

    return formula


def attention_transfer_formula(p):
    def unit(text):
        magnitudes = (np.abs(text) ** p).sum(-1)
        return magnitudes / np.sqrt((magnitudes**2).sum())

    def formula(s, t):
        pairs = zip(s["hidden_states"], t["hidden_states"], strict=True)
        return np.mean([((unit(first) - unit(second)) ** 2).sum() for first, second in pairs])

    return formula


# loss, numpy formula, student (heads, d_head), teacher (heads, d_head); heads None: hidden states
TERMS = {
    "tinybert_attention": (TinyBertAttention(), tinybert_formula, (2, 3), (2, 6)),
    "minilm": (MiniLM(), minilm_formula, (2, 3), (2, 6)),
    "minilm_v2": (MiniLMv2(relation_heads=3), minilm_v2_formula(3), (2, 3), (4, 6)),
    "minilm_v2_one_head": (MiniLMv2(relation_heads=1), minilm_v2_formula(1), (2, 3), (4, 6)),
    "attention_transfer": (AttentionTransfer(), attention_transfer_formula(2), (None, 4), (None, 7)),
    "attention_transfer_1": (AttentionTransfer(p=1), attention_transfer_formula(1), (None, 4), (None, 7)),
    "attention_transfer_4": (AttentionTransfer(p=4.0), attention_transfer_formula(4), (None, 4), (None, 7)),
}
NEEDS = {
    TinyBertAttention: {"queries", "keys"},
    MiniLM: {"queries", "keys", "values"},
    MiniLMv2: {"queries", "keys", "values"},
    AttentionTransfer: {"hidden_states"},
}
all_terms = pytest.mark.parametrize("name", TERMS)


def mask_of(lengths=LENGTHS, total=5):
    return (torch.arange(total) < torch.tensor(lengths)[:, None]).long()


def draw_answer(needs, heads, width, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shape = (len(LENGTHS), 5, width) if heads is None else (len(LENGTHS), heads, 5, width)

    def layers():
        drawn = (2 * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(PAIRS))
        return tuple(each.to(dtype).requires_grad_() for each in drawn)

    return Answer(logits=torch.zeros(len(LENGTHS), 2), **{name: layers() for name in sorted(needs)})


def draw(name, dtype=torch.float64):
    loss, _, student, teacher = TERMS[name]
    return draw_answer(loss.needs, *student, seed=0, dtype=dtype), draw_answer(
        loss.needs, *teacher, seed=1, dtype=dtype
    )


def leaves(answer):
    return [each for name in layers_of(answer) for each in layers_of(answer)[name]]


def layers_of(answer):
    return {name: layers for name, layers in vars(answer).items() if name != "logits" and layers}


def changed(answer, change):
    """The same answer with every tensor but the logits changed."""
    return Answer(
        logits=answer.logits,
        **{name: tuple(change(each) for each in layers) for name, layers in layers_of(answer).items()},
    )


def value(name, student, teacher, mask=None):
    return TERMS[name][0](student, teacher, {"attention_mask": mask_of() if mask is None else mask})


def texts(answer, pair):
    """For each tensor of one pair of layers its texts, cut to their lengths."""
    return {
        name: [row.detach().numpy()[..., :length, :] for row, length in zip(layers[pair], LENGTHS, strict=True)]
        for name, layers in layers_of(answer).items()
    }


# --- the terms


@all_terms
def test_formula(name):
    student, teacher = draw(name)
    loss, formula, *_ = TERMS[name]
    expected = np.mean([formula(texts(student, pair), texts(teacher, pair)) for pair in range(PAIRS)])
    assert expected > 0.01
    found = value(name, student, teacher)
    assert found.shape == ()
    assert found.item() == pytest.approx(expected, rel=1e-10)
    assert value(name, *draw(name, torch.float32)).item() == pytest.approx(expected, rel=1e-4)
    assert value(name, student, teacher, mask_of().bool()).item() == pytest.approx(expected, rel=1e-10)
    assert value(name, student, teacher, mask_of().float()).item() == pytest.approx(expected, rel=1e-10)
    assert loss.needs == NEEDS[type(loss)]
    assert (loss.level, loss.same_width, loss.needs_variances) == ("token", False, False)
    assert "level" not in options_of(type(loss))
    assert not list(loss.parameters())


@all_terms
def test_a_mean_over_rows_says_so(name):
    """Texts have different numbers of tokens: only a term that takes its mean over texts is a mean over rows."""
    student, teacher = draw(name)
    whole = value(name, student, teacher).item()
    parts = [
        value(name, *(changed(answer, lambda each, b=b: each[[b]]) for answer in (student, teacher)), mask_of()[[b]])
        for b in range(len(LENGTHS))
    ]
    mean = sum(parts).item() / len(LENGTHS)
    expected = name.startswith("attention_transfer")
    assert (mean == pytest.approx(whole, rel=1e-9)) == TERMS[name][0].is_mean_over_rows == expected


@all_terms
def test_only_what_is_needed_is_read(name):
    student, teacher = draw(name)
    assert set(layers_of(student)) == TERMS[name][0].needs
    value(name, student, teacher).backward()
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in leaves(student))


@all_terms
def test_zero_at_equality_only(name):
    student, teacher = draw(name)
    assert value(name, teacher, teacher).item() == pytest.approx(0, abs=1e-12)
    assert value(name, student, teacher).item() > 0.01


@all_terms
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
@pytest.mark.parametrize("garbage", [1e4, float("inf"), float("nan")])
def test_padding_changes_nothing(name, dtype, garbage):
    student, teacher = draw(name, dtype)
    expected = value(name, student, teacher)
    expected.backward()
    gradients = [each.grad for each in leaves(student)]

    def padded(tensor):
        tensor = functional.pad(tensor.detach(), (0, 0, 0, 4), value=garbage)
        hidden = mask_of(total=9) == 0
        hidden = hidden[:, None, :, None] if tensor.dim() == 4 else hidden[:, :, None]
        signs = torch.tensor([1, -1]).repeat(tensor.shape[-1])[: tensor.shape[-1]]
        return torch.where(hidden, garbage * signs.to(dtype), tensor).requires_grad_()

    student, teacher = changed(student, padded), changed(teacher, padded)
    found = value(name, student, teacher, mask_of(total=9))
    assert found.item() == pytest.approx(expected.item(), rel=1e-5 if dtype == torch.float16 else 1e-12)
    found.backward()
    for longer, gradient in zip(leaves(student), gradients, strict=True):
        torch.testing.assert_close(longer.grad[..., :5, :], gradient, rtol=1e-3, atol=1e-5)
        assert not longer.grad[..., 5:, :].any()


@all_terms
def test_order_of_rows_and_side_of_padding_change_nothing(name):
    student, teacher = draw(name)
    expected = value(name, student, teacher).item()
    order = torch.tensor([2, 0, 1])
    rows = [changed(answer, lambda each: each[order]) for answer in (student, teacher)]
    assert value(name, *rows, mask_of()[order]).item() == pytest.approx(expected, rel=1e-12)
    flipped = [changed(answer, lambda each: each.flip(-2)) for answer in (student, teacher)]
    assert value(name, *flipped, mask_of().flip(1)).item() == pytest.approx(expected, rel=1e-12)
    assert value(name, rows[0], teacher).item() != pytest.approx(expected, rel=1e-3)


@all_terms
def test_pairs_of_layers_count_alike(name):
    student, teacher = draw(name)
    each = [
        value(
            name,
            *(
                Answer(answer.logits, **{key: layers[i : i + 1] for key, layers in layers_of(answer).items()})
                for answer in (student, teacher)
            ),
        )
        for i in range(PAIRS)
    ]
    assert value(name, student, teacher).item() == pytest.approx(sum(each).item() / PAIRS, rel=1e-12)


@all_terms
@pytest.mark.parametrize("teaches_back", [False, True])
def test_gradient_reaches_whom_it_should(name, teaches_back):
    student, teacher = draw(name)
    loss = TERMS[name][0]
    loss.teaches_back = teaches_back
    try:
        value(name, student, teacher).backward()
    finally:
        loss.teaches_back = False
    assert all(each.grad.abs().sum() > 0 for each in leaves(student))
    assert all((each.grad is not None and bool(each.grad.any())) == teaches_back for each in leaves(teacher))


@all_terms
def test_value_and_gradient_agree(name):
    student, teacher = draw(name)
    names = list(layers_of(student))

    def call(*tensors):
        parts = {key: tensors[i * PAIRS : (i + 1) * PAIRS] for i, key in enumerate(names)}
        return value(name, Answer(logits=student.logits, **parts), teacher)

    assert torch.autograd.gradcheck(call, leaves(student), fast_mode=True)


@all_terms
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("factor", [1, 10])
def test_half_precision_stays_finite_and_right(name, dtype, autocast, factor):
    with torch.no_grad():
        scale = lambda each: (each * factor).round().to(dtype)  # noqa: E731
        student, teacher = (changed(answer, scale) for answer in draw(name))
    for each in leaves(student):
        each.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = value(name, student, teacher)
    assert found.dtype == torch.float32
    exact = value(name, *(changed(answer, lambda each: each.detach().double()) for answer in (student, teacher)))
    assert found.item() == pytest.approx(exact.item(), rel=1e-4)
    found.backward()
    assert all(each.grad.isfinite().all() for each in leaves(student))


@all_terms
def test_texts_without_tokens_are_no_special_case(name):
    student, teacher = draw(name)
    found = value(name, student, teacher, torch.zeros(3, 5, dtype=torch.long))
    found.backward()
    assert found.item() == 0
    assert not any(each.grad.any() for each in leaves(student))


@pytest.mark.parametrize("p", [1, 2, 3.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_attention_transfer_of_zero_vectors_is_finite(p, dtype):
    student = torch.zeros(2, 3, 4, dtype=dtype, requires_grad=True)
    found = attention_transfer(student, torch.ones(2, 3, 5), torch.ones(2, 3), p)
    found.backward()
    assert found.item() == pytest.approx(1)
    assert student.grad.isfinite().all()


def test_attention_transfer_is_at_most_two_and_knows_no_scale():
    one, other = torch.eye(2)[None], torch.eye(2)[None].clone()
    one[:, 0], other[:, 1] = 0, 0
    assert attention_transfer(one, other, torch.ones(1, 2)).item() == pytest.approx(2)
    student, teacher = draw("attention_transfer")
    expected = value("attention_transfer", student, teacher).item()
    assert value("attention_transfer", changed(student, lambda each: 7 * each), teacher).item() == pytest.approx(
        expected
    )


def test_minilm_v2_reads_through_other_head_counts():
    """The same vectors in other heads are the same vectors."""
    student, teacher = draw("minilm_v2")
    expected = value("minilm_v2", student, teacher).item()
    split = lambda each: each.transpose(1, 2).flatten(2).unflatten(-1, (6, -1)).transpose(1, 2)  # noqa: E731
    assert value("minilm_v2", changed(student, split), teacher).item() == pytest.approx(expected, rel=1e-12)


# --- options and errors


@pytest.mark.parametrize(
    ("term", "options", "words"),
    [
        (TinyBertAttention, {"weight": -1}, ["weight", "of at least 0", "-1"]),
        (MiniLM, {"weight": None}, ["weight", "None"]),
        (MiniLMv2, {"relation_heads": 0}, ["relation_heads", "whole number of at least 1", "found 0"]),
        (MiniLMv2, {"relation_heads": 2.0}, ["relation_heads", "found 2.0"]),
        (MiniLMv2, {"relation_heads": True}, ["relation_heads", "found True"]),
        (AttentionTransfer, {"p": 0.5}, ["p must be", "in [1, 100]", "0.5"]),
        (AttentionTransfer, {"p": "two"}, ["p must be", "'two'"]),
    ],
)
def test_wrong_options_are_refused(term, options, words):
    with pytest.raises(KDError) as error:
        term(**options)
    for word in words:
        assert word in str(error.value)


def config(heads, width):
    return SimpleNamespace(num_attention_heads=heads, hidden_size=width)


@pytest.mark.parametrize("loss", [TinyBertAttention(), MiniLM()])
def test_other_number_of_heads_is_a_mismatch(loss):
    assert loss.mismatch(config(4, 64), config(4, 384)) is None
    assert "the student has 4, the teacher 12; use minilm_v2" in loss.mismatch(config(4, 48), config(12, 48))


@pytest.mark.parametrize(("student", "teacher"), [(64, 768), (768, 64)])
def test_relation_heads_must_divide_both_widths(student, teacher):
    loss = MiniLMv2(relation_heads=12)
    assert loss.mismatch(config(4, 24), config(6, 768)) is None
    clause = loss.mismatch(config(12, student), config(12, teacher))
    assert f"relation_heads=12 must divide the hidden sizes {student} of the student and {teacher}" in clause
    assert "a divisor of 64" in clause
    assert MiniLMv2(relation_heads=16).mismatch(config(4, student), config(12, teacher)) is None


def test_attention_transfer_compares_any_two():
    assert AttentionTransfer().mismatch(config(1, 5), config(12, 768)) is None


@pytest.mark.parametrize("name", ["tinybert_attention", "minilm"])
def test_other_heads_are_refused(name):
    student, _ = draw(name)
    _, teacher = draw("minilm_v2")
    with pytest.raises(KDError, match=r"student \[3, 2, 5\] and teacher \[3, 4, 5\].*minilm_v2"):
        value(name, student, teacher)


@all_terms
def test_other_tokens_are_refused(name):
    student, teacher = draw(name)
    with pytest.raises(KDError, match=r"student \[3, .*5\] and teacher \[3, .*4\]; use one tokenizer"):
        value(name, student, changed(teacher, lambda each: each[..., :4, :]))


def test_width_that_cannot_be_cut_is_refused():
    student, teacher = draw("minilm_v2")
    with pytest.raises(KDError, match=r"relation_heads must divide .* found 4 and 6"):
        MiniLMv2(relation_heads=4)(student, teacher, {"attention_mask": mask_of()})
