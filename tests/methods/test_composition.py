"""Composition: who is trained, what is kept and resumed, with the teacher's features live and from the cache."""

import copy

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from kd.errors import KDError
from kd.features.feature import Feature
from kd.features.fitted_mapper import PCA
from kd.features.mapper import Linear
from kd.losses.hint import Hint
from kd.losses.logits import SoftTarget
from kd.methods.composition import Composition
from kd.methods.distillation import FrozenTeacher, cached_teacher
from kd.models import BiLSTMConfig, MLPConfig
from kd.models.composition import ComposedStudent, compose
from kd.options.methods import CompositionOptions
from tests.methods.test_base import RECIPE, assert_same, fit, make_split, weights
from tests.methods.tools import (
    assert_resumes,
    checkpoint_of,
    gradient_size,
    inputs_of,
    objective,
    rates_of,
    with_columns,
)

BODY = {"vocab_size": 1, "embedding_size": 6, "num_labels": 2, "dropout": 0.2}


def composed(teacher, body="mlp", mapper=Linear, layer=2) -> ComposedStudent:
    torch.manual_seed(0)
    bodies = {"mlp": MLPConfig(**BODY, hidden_size=16), "bilstm": BiLSTMConfig(**BODY, hidden_size=4)}
    return compose(teacher, layer, mapper, bodies[body])


COLUMN = Feature("hidden_states", 2)


def make_composition(teacher, body="mlp", losses=None, source=cached_teacher, mapper=Linear, **options) -> Composition:
    model = composed(teacher, body, mapper)
    return Composition(
        model,
        RECIPE,
        objective({} if losses is None else losses),
        source,
        CompositionOptions(**options),
    )


@pytest.mark.parametrize("body", ["mlp", "bilstm"])
def test_cached_features_train_as_the_live_encoder_does(teacher, body):
    losses = {"soft_target": SoftTarget(2.0)}
    live = make_composition(teacher, body, copy.deepcopy(losses), FrozenTeacher(teacher))
    whole, halves = (make_composition(teacher, body, copy.deepcopy(losses)) for _ in range(2))
    calls = []
    for method in (whole, halves):
        method.student.encoder.register_forward_hook(lambda *_: calls.append(1))
    one = fit(live)
    for method, dtype, tolerance in ((whole, np.float32, 1e-5), (halves, np.float16, 5e-3)):
        split = with_columns({"": teacher}, features=[COLUMN], dtype=dtype)
        two = fit(method, split, limit_val_batches=0)
        np.testing.assert_allclose(one.losses, two.losses, atol=tolerance)
        assert method.logits(split[[0, 1]]).shape == (2, 2)
    assert not calls, "where the features are in the batch, the encoder does not run"


def test_the_encoder_is_in_no_checkpoint_and_the_weights_load_back(teacher, tmp_path):
    method = make_composition(teacher, "bilstm", mapper_learning_rate=0.03)
    before, start = weights(method.student.encoder), weights(method.student)
    curve = fit(method, path=tmp_path, epochs=3)
    assert_same(before, weights(method.student.encoder))
    assert rates_of(curve.trainer, method.student.mapper) == {0.03}
    groups = curve.trainer.optimizers[0].param_groups
    trained = {id(parameter): group["initial_lr"] for group in groups for parameter in group["params"]}
    names = {name: trained.get(id(parameter)) for name, parameter in method.named_parameters()}
    assert {name for name, rate in names.items() if rate is None} == {
        *(name for name in names if name.startswith("student.encoder.")),
        "student.body.embedding.weight",
    }
    assert {rate for name, rate in names.items() if name.startswith("student.body.") and rate} == {1e-2}
    state = checkpoint_of(tmp_path)
    assert not any("encoder" in name for name in state)
    assert not torch.equal(state["student.mapper.linear.weight"], start["mapper.linear.weight"])
    again = make_composition(teacher, "bilstm")
    assert not torch.equal(again.student.mapper.linear.weight, method.student.mapper.linear.weight)
    again.load_state_dict(state)
    assert_same(weights(again.student), weights(method.student))
    method.student.eval().save_pretrained(tmp_path / "model")
    saved, inputs = ComposedStudent.from_pretrained(tmp_path / "model"), inputs_of(make_split()[[3, 4, 5]])
    with torch.no_grad():
        torch.testing.assert_close(saved(**inputs).logits, again.student.eval()(**inputs).logits)


def test_a_foreign_checkpoint_is_refused(teacher, tmp_path):
    """Also where training would go on from it: nothing of it fits, and nothing would say so."""
    keep = ModelCheckpoint(tmp_path, save_last=True)
    fit(make_composition(teacher, "bilstm"), path=tmp_path, callbacks=[keep], epochs=1)
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    message = r"the checkpoint is of another model: it lacks \['student.body.* and has \['student.body.lstm.*rerun=true"
    with pytest.raises(KDError, match=message):
        make_composition(teacher, "mlp").load_state_dict(state)
    with pytest.raises(KDError, match="is of another model"):
        fit(make_composition(teacher, "mlp"), checkpoint=tmp_path / "last.ckpt")


@pytest.mark.parametrize(("mapper", "live", "averaged"), [(Linear, True, True), (PCA, False, False)])
def test_a_resumed_composition_equals_an_unbroken_one(teacher, tmp_path, mapper, live, averaged):
    split = with_columns({"": teacher}, features=[COLUMN])
    values = torch.from_numpy(split.columns[f"teacher_{COLUMN.column}"].values).float()

    def make():
        source = FrozenTeacher(teacher) if live else cached_teacher
        method = make_composition(teacher, "bilstm", {"soft_target": SoftTarget(2.0)}, source, mapper)
        if mapper is PCA:
            method.student.mapper.fit(values)
        return method

    assert_resumes(make, tmp_path, None if live else split, stops=(2,), averaged=averaged)


def test_a_composition_without_transfer_terms_learns_from_labels(teacher):
    method = make_composition(teacher)
    parts = method.losses(make_split()[[0, 1, 2]])
    assert set(parts) == {"total", "label"} and parts["total"] == parts["label"]
    parts["total"].backward()
    assert gradient_size(method.student.encoder) is None
    assert gradient_size(method.student.mapper) > 0 and gradient_size(method.student.body.head) > 0


def test_a_composition_refuses_terms_on_layers(teacher):
    with pytest.raises(
        KDError,
        match=r"'hint' compares hidden states, .* only logits; .*; use losses on logits, loss=.., or method=hints",
    ):
        make_composition(teacher, losses={"hint": Hint()})
