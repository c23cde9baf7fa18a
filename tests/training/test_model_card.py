"""The README of a saved model."""

import pytest

from kd.config.compose import composed
from kd.training.model_card import model_card

FIGURES = {
    "student": "dan",
    "method": "distillation",
    "data": "mine",
    "seed": 3,
    "weights": "best on validation",
    "parameters": {"total": 12345, "without_embeddings": 678},
    "validation": {"rows": 20, "accuracy": 0.75, "macro_f1": 0.7, "balanced_accuracy": 0.6, "auroc": 0.8},
    "test": {"rows": 30, "accuracy": 0.5, "macro_f1": 0.45678, "balanced_accuracy": 0.5, "auroc": 0.55},
}


@pytest.mark.parametrize(
    ("method", "more", "said"),
    [
        ("distillation", {"teacher_cost": {"name": "big"}}, "taught by `big` (`loss=['soft_target']`), seed 3"),
        ("joint", {}, "taught by `its peers`"),
        ("supervised", {"teacher_cost": {"name": "big"}}, "`method=distillation`, seed 3"),
    ],
)
def test_it_says_what_the_model_is(method, more, said):
    card = model_card(composed([f"method={method}"]), FIGURES | more)
    assert said in card and "12,345 parameters" in card and "| macro F1 | 0.7000 | 0.4568 |" in card
    assert "| AUROC | 0.8000 | 0.5500 |" in card
