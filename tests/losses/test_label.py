"""The label loss against numpy and torch."""

import math

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from kd.errors import KDError
from kd.losses.label import LabelLoss, balanced, label_loss
from tests.losses.logit_terms import draw, softmax


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("num_labels", [2, 5])
def test_label_loss_is_the_mean_over_labelled_rows(num_labels, label_smoothing):
    logits, _ = draw(num_labels)
    labels = torch.tensor([0, -100, 1, 1, -100, 0, 1])
    terms = [
        -np.log(softmax(row)) @ ((1 - label_smoothing) * np.eye(num_labels)[label] + label_smoothing / num_labels)
        for row, label in zip(logits.detach().numpy(), labels.numpy(), strict=True)
        if label >= 0
    ]
    loss = LabelLoss(label_smoothing)(logits, labels)
    assert loss.item() == pytest.approx(np.mean(terms), rel=1e-10)
    loss.backward()
    assert (logits.grad[labels == -100] == 0).all()
    assert (logits.grad[labels != -100] != 0).all()


def test_label_loss_equals_torch_where_all_rows_are_labelled():
    logits, _ = draw(3, dtype=torch.float32)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    torch.testing.assert_close(label_loss(logits, labels), functional.cross_entropy(logits, labels))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_label_gives_zero_and_zero_gradient(label_smoothing, dtype):
    logits = torch.tensor([[60.0, -60.0], [1.0, 2.0]], dtype=dtype, requires_grad=True)
    loss = label_loss(logits, torch.tensor([-100, -100]), label_smoothing)
    assert loss.item() == 0
    loss.backward()
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_label_loss_is_float32_in_half_precision(dtype, autocast):
    logits = torch.tensor([[60, -60], [2, 1]], dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = label_loss(logits, torch.tensor([1, 0]))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx((120 + math.log1p(math.exp(-1))) / 2, rel=1e-6)
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("label_smoothing", [1.0, -0.1, "some", math.nan])
def test_wrong_smoothing_is_refused(label_smoothing):
    with pytest.raises(KDError) as error:
        LabelLoss(label_smoothing=label_smoothing)
    for word in ("label_smoothing", "[0, 0.95]", repr(label_smoothing)):
        assert word in str(error.value)


def test_class_weights_multiply_the_rows():
    logits, labels = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2, -100, 1, 0])
    weights = [0.5, 3.0, 2.0]
    rows = [label_loss(logits[[row]], labels[[row]], 0.1) * weights[labels[row]] for row in (0, 1, 3, 4)]
    assert LabelLoss(0.1, weights)(logits, labels).item() == pytest.approx(torch.stack(rows).mean().item(), rel=1e-6)
    assert LabelLoss(0.1, weights).state_dict() == {}  # checkpoints are as without weights


def test_balanced_weights_are_those_of_scikit_learn():
    labels = np.array([0] * 7 + [2] * 3 + [1] * 10)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert balanced(labels, 3) == pytest.approx(expected)
    assert balanced(np.array([0, 0, 2, 2, -100]), 3)[::2] == [1.0, 1.0]  # a label without a row counts for nothing
