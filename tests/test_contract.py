"""What every loss inherits: precision, a detached teacher, declared options, and that it says what it is."""

import pytest
import torch

from kd.contract import Answer, FeatureLoss, Loss, precise, supported_outputs
from kd.errors import OptionError
from kd.options.declared import options_of


class Product(Loss):
    """A user's loss."""

    def term(self, student, teacher, batch):
        self.seen = torch.is_autocast_enabled("cpu")
        return (student.logits * teacher.logits).sum()


class Sum(FeatureLoss):
    """A user's loss on features."""

    def term(self, student, teacher, batch):
        return sum((own * other).sum() for own, other in zip(student.hidden_states, teacher.hidden_states, strict=True))


def answers():
    return [Answer(logits=torch.ones(2, 2, requires_grad=True)) for _ in range(2)]


def test_the_teacher_is_detached_unless_it_is_taught():
    loss, (student, teacher) = Product(), answers()
    loss(student, teacher, {}).backward()
    assert student.logits.grad is not None and teacher.logits.grad is None
    loss.teaches_back = True
    loss(student, teacher, {}).backward()
    assert teacher.logits.grad is not None


def test_every_output_of_the_teacher_is_detached():
    student, teacher = (
        Answer(logits=torch.zeros(1, 2), hidden_states=(torch.ones(1, 3, requires_grad=True),)) for _ in range(2)
    )
    Sum()(student, teacher, {}).backward()
    assert student.hidden_states[0].grad is not None and teacher.hidden_states[0].grad is None


def test_mixed_precision_is_off():
    loss = Product()
    with torch.autocast("cpu", torch.bfloat16):
        loss(*answers(), {})
        assert torch.is_autocast_enabled("cpu")
    assert loss.seen is False


def test_what_is_not_ours_compares_rows_until_it_says_otherwise():
    assert not Product().is_mean_over_rows
    assert not Sum().is_mean_over_rows


@pytest.mark.parametrize(
    ("loss", "options", "words"),
    [
        (Product, {"weight": -1}, "weight must be a number of at least 0, found -1"),
        (Product, {"weight": "1"}, "weight must be a number of at least 0, found '1'"),
        (Sum, {"level": "word"}, "level must be sentence or token, found 'word'"),
        (Sum, {"layers": 3}, "layers must be text or a list or null, found 3"),
    ],
)
def test_inherited_options_are_checked(loss, options, words):
    with pytest.raises(OptionError, match=words):
        loss(**options)


def test_inherited_options_have_a_meaning():
    assert set(options_of(Sum)) == {"level", "layers", "weight"}
    assert all(option.meaning for option in options_of(Sum).values())


def test_precise_is_float32_at_least():
    types = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    assert [precise(torch.ones(1, dtype=dtype)).dtype for dtype in types] == [torch.float32] * 3 + [torch.float64]


def test_a_config_may_support_fewer_outputs():
    class Config:
        supported_outputs = frozenset({"logits"})

    assert supported_outputs(Config()) == {"logits"}
    assert "hidden_states" in supported_outputs(object())
