"""Layer-wise learning rates and averaged weights in the fine-tuning of a teacher; the search; several seeds."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import BertConfig, DistilBertConfig, MPNetConfig, RobertaConfig
from transformers.models.auto.modeling_auto import AutoModelForSequenceClassification

from kd.errors import KDError, TrainingFailed
from kd.runtime.devices import Devices
from kd.teacher import fine_tuning
from kd.teacher.ensemble import Ensemble, of_seeds
from kd.teacher.recipe import layer_scales, layerwise_adamw
from tests.teacher.conftest import split

SIZES = {"hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 20}


@pytest.mark.parametrize(
    "config",
    [
        BertConfig(**SIZES),
        RobertaConfig(**SIZES),
        MPNetConfig(**SIZES),
        DistilBertConfig(dim=8, n_layers=3, n_heads=2, hidden_dim=16, vocab_size=20),
    ],
    ids=lambda config: config.model_type,
)
def test_each_layer_learns_slower_than_the_one_above(config):
    model = AutoModelForSequenceClassification.from_config(config)
    found = layer_scales(model, 0.5)
    scales = {name: found[parameter] for name, parameter in model.named_parameters()}
    by_layer = {number: {scale for name, scale in scales.items() if f"layer.{number}." in name} for number in range(3)}
    assert by_layer == {0: {0.125}, 1: {0.25}, 2: {0.5}}
    assert {scale for name, scale in scales.items() if "embeddings." in name} == {0.0625}
    assert {scale for name, scale in scales.items() if "classifier" in name} == {1.0}


def test_a_model_without_numbered_layers_is_refused():
    with pytest.raises(KDError, match=r"layer_decay: expected a model with numbered layers, found none in Linear; set"):
        layer_scales(nn.Linear(2, 2), 0.9)


def test_a_step_is_scaled():
    weights = [nn.Parameter(torch.ones(2)) for _ in range(3)]
    optimizer = layerwise_adamw(
        [{"params": weights, "weight_decay": 0.0}], dict(zip(weights, (1, 0.5, 0.1), strict=True)), 0.01, 0.1
    )
    sum(weight.sum() for weight in weights).backward()
    optimizer.step()
    moved = [1 - weight[0].item() for weight in weights]
    assert moved == pytest.approx([0.01, 0.005, 0.001], rel=1e-3), "AdamW's first step is the learning rate"


def weights_of(ready) -> dict[str, torch.Tensor]:
    return load_file(ready.folder / "model.safetensors")


def test_what_changes_nothing_keeps_the_name_of_a_teacher(teacher, splits, tmp_path):
    assert "average" not in teacher._recipe() and "layer_decay" not in teacher._recipe()
    names = {
        dataclasses.replace(teacher, **change).key(splits)
        for change in ({}, {"average": 0.0}, {"layer_decay": 1.0}, {"average": 0.5}, {"layer_decay": 0.9})
    }
    assert len(names) == 3


def test_lower_layers_move_less(teacher, splits, tmp_path):
    plain, layered = (dataclasses.replace(teacher, layer_decay=decay).ready(splits, tmp_path) for decay in (1.0, 0.01))
    start = load_file(teacher.backbone / "model.safetensors")
    names = [name for name in weights_of(plain) if "embeddings.word" in name]
    (name,) = names
    before = start[name if name in start else name.split(".", 1)[1]]
    moved = [(weights_of(ready)[name] - before).norm() for ready in (plain, layered)]
    assert 0 < moved[1] < moved[0] / 10


def test_the_average_is_that_of_the_last_steps(teacher, splits, tmp_path, monkeypatch):
    """Four steps of 16 rows; the average of the last half is the mean of the weights after steps 3 and 4."""
    kept = []

    class Watched(fine_tuning.LastWeights):
        def on_train_batch_end(self, trainer, pl_module, *rest):
            kept.append({name: value.clone() for name, value in pl_module.student.state_dict().items()})
            super().on_train_batch_end(trainer, pl_module, *rest)

    monkeypatch.setattr(fine_tuning, "LastWeights", Watched)
    found = weights_of(dataclasses.replace(teacher, average=0.5).ready(splits, tmp_path))
    assert len(kept) == 4
    for name, value in found.items():
        torch.testing.assert_close(value, (kept[2][name] + kept[3][name]) / 2)
    last = weights_of(dataclasses.replace(teacher, average=0.01).ready(splits, tmp_path))
    plain = weights_of(teacher.ready(splits, tmp_path))
    assert all(torch.equal(last[name], plain[name]) for name in plain), "one step is the last one"


def test_averaging_of_divided_weights_is_refused(teacher, splits, tmp_path):
    with pytest.raises(KDError, match=r"teacher.average=0.5 reads whole weights"):
        dataclasses.replace(teacher, average=0.5).ready(splits, tmp_path, Devices("cpu", 2, sharded=True))


def test_a_search_takes_the_best_on_validation_once(teacher, splits, tmp_path, caplog):
    caplog.set_level("INFO")
    searching = dataclasses.replace(teacher, search=True, seed=3)
    ready = searching.ready(splits, tmp_path)
    places = sorted(tmp_path.glob("teachers/*/teacher.json"))
    assert len(places) == 5, "three learning rates, twice the epochs, and the seed of the teacher itself"
    facts = [fine_tuning.records.read(place, fine_tuning.records.TrainedTeacher) for place in places]
    searched = [fact for fact in facts if fact["seed"] == 0]
    assert sorted(fact["learning_rate"] for fact in searched if fact["epochs"] == 1) == [5e-4, 1e-3, 2e-3]
    best = max(fact["validation_accuracy"] for fact in searched)
    chosen = [fact for fact in searched if fact["validation_accuracy"] == best]
    assert ready.facts["seed"] == 3
    assert (ready.facts["learning_rate"], ready.facts["epochs"]) in {
        (fact["learning_rate"], fact["epochs"]) for fact in chosen
    }
    caplog.clear()
    assert searching.ready(splits, tmp_path).folder == ready.folder
    assert "once" not in caplog.text, "nothing is trained again"


def test_a_learning_rate_that_diverges_is_left_out_of_the_search(teacher, splits, tmp_path, monkeypatch, caplog):
    train, reason, tried = type(teacher)._train, TrainingFailed("the loss is not finite"), []

    def failing(self, *rest):
        tried.append(self.learning_rate)
        if self.learning_rate > 1e-3:
            raise reason
        train(self, *rest)

    monkeypatch.setattr(type(teacher), "_train", failing)
    searching = dataclasses.replace(teacher, search=True)
    for _ in range(2):
        caplog.clear()
        assert searching.ready(splits, tmp_path).facts["learning_rate"] <= 1e-3
        assert "learning rate 0.002 is left out: the loss is not finite" in caplog.text
    assert tried.count(2e-3) == 1, "what failed is not trained again"
    reason = KDError("the disk is full")
    with pytest.raises(KDError, match="the disk is full"):
        searching.ready(splits, tmp_path / "other")


def test_a_search_in_which_all_fail_is_refused(teacher, splits, tmp_path, caplog):
    caplog.set_level("INFO")
    rows = [*zip(splits.train["text"], splits.train["label"], strict=True), ("a new scene", -100)]
    unlabelled = dataclasses.replace(splits, train=split(rows))
    searching = dataclasses.replace(teacher, search=True, learning_rate=1e-30)
    for trained in (3, 0):
        caplog.clear()
        with pytest.raises(KDError, match=r"half, once or twice teacher.learning_rate=1e-30, found that each"):
            searching.ready(unlabelled, tmp_path)
        assert caplog.text.count("on 60 rows (once)") == trained, "rows without a label are not counted"


def test_several_seeds_are_an_ensemble(teacher, splits, tmp_path, caplog):
    caplog.set_level("INFO")
    several = of_seeds(dataclasses.replace(teacher, seeds=2, seed=5))
    assert isinstance(several, Ensemble) and list(several.members) == ["seed5", "seed6"]
    texts = splits.test["text"]
    logits = several.ready(splits, tmp_path).live_logits(texts)
    assert "teacher: validation accuracy of 2 members 0." in caplog.text
    alone = [dataclasses.replace(teacher, seed=seed).ready(splits, tmp_path).live_logits(texts) for seed in (5, 6)]
    assert logits == pytest.approx((alone[0] + alone[1]) / 2, abs=1e-6)
    assert of_seeds(teacher) is teacher


@pytest.mark.parametrize("option", [{"seeds": 2}, {"search": True}, {"average": 0.5}, {"layer_decay": 0.9}])
def test_a_teacher_that_is_not_trained_has_no_such_option(teacher, option):
    with pytest.raises(KDError, match=rf"teacher.{next(iter(option))} is about the fine-tuning"):
        dataclasses.replace(teacher, fine_tune=False, **option)


def test_a_member_is_one_model(teacher):
    with pytest.raises(KDError, match=r"teacher.members.one: expected one model, found several; list"):
        Ensemble({"one": dataclasses.replace(teacher, seeds=2)})
