"""Two processes on the CPU, as ``strategy="ddp"`` trains: no unused parameter, equal weights, every row once."""

import hashlib
from itertools import chain
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch

from kd.data.batching import EncodedSplit, Ragged
from kd.data.module import TextDataModule
from kd.features.matching import Matching
from kd.losses.hint import Hint
from kd.losses.logits import LogitMSE, SoftTarget
from kd.methods.base import Method
from kd.methods.distillation import Distillation, FrozenTeacher
from kd.methods.hints import Hints
from kd.methods.joint import Joint
from kd.methods.objective import Objective
from kd.methods.schedules import Constant, LearnedTemperature, Switch
from kd.methods.weighting import UncertaintyWeighting
from kd.options.methods import HintsOptions, JointOptions
from tests.conftest import bare_trainer
from tests.end_to_end.ranks import RANKS, reports, start_ranks
from tests.methods.test_base import RECIPE, make_student, make_teacher
from tests.methods.test_joint import accuracy, make_dan

TRAINING_ROWS, VALIDATION_ROWS, EPOCHS = 45, 21, 2

pytestmark = pytest.mark.slow


def split_of(rows: int, seed: int) -> EncodedSplit:
    generator = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(generator.integers(2, 9, rows))])
    tokens = Ragged(generator.integers(1, 50, offsets[-1]).astype(np.int32), offsets)
    columns = {"teacher_logits": generator.normal(size=(rows, 2)).astype(np.float32)}
    return EncodedSplit(tokens, generator.integers(0, 2, rows), 0, columns=columns)


TRAIN, VALIDATION = split_of(TRAINING_ROWS, 0), split_of(VALIDATION_ROWS, 1)


def one_way() -> Joint:
    """Both learn at every step."""
    objective = Objective({"soft_target": SoftTarget(2.0)}, Constant(0.5))
    options = JointOptions(RECIPE.schedule, partner_learning_rate=1e-3)
    return Joint(make_student(), RECIPE, objective, {"teacher": make_teacher()}, options)


def with_pauses() -> Joint:
    """When alpha is 0, nothing is asked of the partners and the learned temperature."""
    objective = Objective({"soft_target": SoftTarget(2.0)}, Switch(0.5, 0.0, until=0.5), LearnedTemperature())
    options = JointOptions(RECIPE.schedule, partner_weight=0.0, flow=True, clean_targets=False)
    return Joint(make_dan(0), RECIPE, objective, {"one": make_dan(1), "two": make_dan(2)}, options)


def in_stages() -> Hints:
    """In the feature stage the student's head rests, and in the task stage its mappers."""
    student, teacher = make_student(), make_teacher()
    losses = {"hint": Hint(), "soft_target": SoftTarget(2.0)}
    matching = Matching({"hint": losses["hint"]}, student, teacher.config, layers="top")
    objective = Objective(losses, Constant(0.5), weighting=UncertaintyWeighting)
    return Hints(
        student, RECIPE, objective, {"teacher": matching}, FrozenTeacher(teacher), HintsOptions(feature_epochs=1)
    )


def calibrated() -> Distillation:
    return Distillation(make_dan(), RECIPE, Objective({"logit_mse": LogitMSE()}, Constant(0.5), calibrate=True))


METHODS = {make.__name__: make for make in (one_way, with_pauses, in_stages, calibrated)}


class Watch(lightning.Callback):
    """The rows of every epoch, and the first step's terms and scales, before the ranks exchange buffers again."""

    def __init__(self):
        self.rows, self.first = [], {}

    def on_train_epoch_start(self, trainer, method):
        self.rows.append([])

    def on_train_batch_end(self, trainer, method, outputs, batch, batch_index):
        self.rows[-1].append(batch["index"].tolist())
        if trainer.global_step == 1:
            logged = {name: value.item() for name, value in trainer.callback_metrics.items() if "train/loss" in name}
            self.first = logged | {"scales": method.objective.scales.tolist()}


def trained(method: Method) -> dict:
    """Train on this process and its neighbours, and say what came of it."""
    partners = getattr(method, "partners", {})
    before = [accuracy(model, VALIDATION) for model in partners.values()]
    start = {name: value.clone() for name, value in method.named_parameters()}
    watch = Watch()
    trainer = bare_trainer(
        devices=RANKS,
        strategy="ddp_find_unused_parameters_true",
        max_epochs=EPOCHS,
        log_every_n_steps=1,
        callbacks=[watch],
    )
    trainer.fit(method, TextDataModule(TRAIN, VALIDATION, batch_size=8, evaluation_batch_size=8))
    assert trainer.world_size == RANKS
    weights = {name: value.numpy().tobytes() for name, value in method.state_dict().items()}
    models = {"val/accuracy": method.student} | {f"val/{name}_accuracy": model for name, model in partners.items()}
    return {
        "rows": watch.rows,
        "first": watch.first,
        "weights": {name: hashlib.sha256(value).hexdigest() for name, value in weights.items()},
        "finite": all(bool(value.isfinite().all()) for value in method.state_dict().values()),
        "still": [name for name, value in method.named_parameters() if torch.equal(value, start[name])],
        "before": [before, method.accuracy_before.tolist() if partners else []],
        "accuracy": {
            name: [trainer.callback_metrics[name].item(), accuracy(model, VALIDATION)] for name, model in models.items()
        },
    }


def of_every_method(folder: Path) -> dict:
    return {name: trained(make()) for name, make in METHODS.items()}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict]:
    """What each rank reports of each method; all of them in one start of the processes."""
    return reports("tests.end_to_end.test_ddp", tmp_path_factory.mktemp("ddp"), timeout=60)


@pytest.mark.parametrize("method", METHODS)
def test_the_ranks_end_with_the_same_weights(ranks, method):
    one, two = (rank[method] for rank in ranks)
    assert one["weights"] == two["weights"] and one["finite"]
    still = [name for name in one["still"] if not name.endswith("key.bias")]  # which a softmax does not feel
    assert still == [], "every part was trained"


@pytest.mark.parametrize("method", METHODS)
def test_every_row_is_seen_once_an_epoch(ranks, method):
    one, two = (rank[method]["rows"] for rank in ranks)
    assert len(one) == EPOCHS and one[0] != one[1]
    for epochs in zip(one, two, strict=True):
        assert sorted(chain.from_iterable(chain.from_iterable(epochs))) == list(range(TRAINING_ROWS))
        assert len(epochs[0]) == len(epochs[1])


@pytest.mark.parametrize("method", METHODS)
def test_accuracies_are_those_of_the_whole_split(ranks, method):
    for rank in ranks:
        found = rank[method]
        assert len(found["accuracy"]) == 1 + len(found["before"][0])
        for logged, whole in [*found["accuracy"].values(), found["before"]]:
            assert logged == pytest.approx(whole)


def test_calibration_is_that_of_all_ranks(ranks):
    first = [rank["calibrated"]["first"] for rank in ranks]
    ratio = first[0]["train/loss/label"] / first[0]["train/loss/logit_mse"]
    assert [step["scales"] for step in first] == [pytest.approx([ratio])] * RANKS


if __name__ == "__main__":
    start_ranks(of_every_method)
