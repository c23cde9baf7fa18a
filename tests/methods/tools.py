"""Helpers of the tests of methods: tiny models with hints, recorded values, interrupted runs."""

import copy

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers.logger import Logger

from kd.data.batching import Ragged
from kd.features.feature import read
from kd.features.matching import Matching
from kd.losses.hint import Hint
from kd.losses.logits import SoftTarget
from kd.methods.distillation import FrozenTeacher
from kd.methods.hints import Hints
from kd.methods.objective import Objective
from kd.methods.schedules import Constant
from kd.options.methods import HintsOptions
from tests.features.test_matching import make_student
from tests.methods.test_base import RECIPE, assert_same, fit, make_split, weights


@torch.no_grad()
def with_columns(teachers, split=None, features=(), dtype=np.float16):
    """A split with logits of the first teacher and features of each, by member, as the cache would hold them."""
    split = split or make_split()
    batch = split[list(range(len(split)))]
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    real = batch["attention_mask"].bool()
    columns = {}
    for member, model in teachers.items():
        logits, found = read(model, inputs, [feature for feature in features if feature.member == member])
        columns.setdefault("teacher_logits", logits.numpy())
        for feature, value in found.items():
            column = value if feature.pooling else value[real]
            column = column.numpy().astype(dtype)
            columns[f"teacher_{feature.column}"] = column if feature.pooling else Ragged(column, split.tokens.offsets)
    return copy.copy(split).__class__(split.tokens, split.labels, split.padding, columns=columns)


def objective(losses=None, alpha=0.5, **options) -> Objective:
    losses = {"soft_target": SoftTarget(2.0), "hint": Hint()} if losses is None else losses
    return Objective(losses, Constant(alpha) if isinstance(alpha, float) else alpha, **options)


def make_hints(teacher, student="bilstm", terms=None, source=None, layers="last", **options) -> Hints:
    """A new student, a new mapper and a live teacher; what is no option of `HintsOptions` goes to the matching."""
    terms = objective() if terms is None else terms
    student = make_student(student)
    torch.manual_seed(3)
    known = {key: options.pop(key) for key in ("mapper", "pooling", "shared") if key in options}
    losses = {name: loss for name, loss in terms.transfer.items() if loss.needs != {"logits"}}
    matching = Matching(losses, student, teacher.config, layers, **known)
    return Hints(
        student, RECIPE, terms, {"teacher": matching}, source or FrozenTeacher(teacher), HintsOptions(**options)
    )


class Recorder(Logger):
    """Keeps what a logger is given, step by step."""

    name = version = "recorder"

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_hyperparams(self, *args, **options):
        pass

    def log_metrics(self, metrics, step=None):
        found = {name.removeprefix("train/"): value for name, value in metrics.items() if name.startswith("train/")}
        if found:
            self.rows.append(found)


class Record(lightning.Callback):
    """Gives the Trainer a `Recorder`, and keeps the size of the gradients of named parts at each step."""

    def __init__(self, *parts: str):
        self.parts, self.recorder, self.gradients = parts, Recorder(), []

    def setup(self, trainer, method, stage):
        trainer.loggers = [self.recorder]

    def on_before_optimizer_step(self, trainer, method, optimizer):
        self.gradients.append({part: gradient_size(method.get_submodule(part)) for part in self.parts})


def gradient_size(module) -> float | None:
    """None where nothing was computed at all."""
    found = [parameter.grad.abs().sum().item() for parameter in module.parameters() if parameter.grad is not None]
    return sum(found) if found else None


def recorded(method, split=None, parts=(), **options) -> Record:
    record = Record(*parts)
    fit(method, split, callbacks=[record], log_every_n_steps=1, **options)
    return record


class StopAt(lightning.Callback):
    def __init__(self, epoch: int):
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, method):
        if trainer.current_epoch == self.epoch:
            raise RuntimeError("killed")


def assert_resumes(make, tmp_path, split=None, epochs=4, stops=(1, 3), averaged=False):
    """What goes on from the checkpoint before one of these epochs repeats the unbroken run, bit for bit."""
    whole, keep = make(), ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)

    def others():
        return [EMAWeightAveraging(decay=0.5)] if averaged else []

    one = fit(whole, split, epochs=epochs, path=tmp_path, callbacks=[keep, *others()])
    for stop in stops:
        resumed = make()
        torch.manual_seed(123)  # the state of the generator at the restart must not matter
        checkpoint = tmp_path / f"epoch={stop - 1}.ckpt"
        two = fit(resumed, split, epochs=epochs, checkpoint=checkpoint, callbacks=others())
        assert len(two.losses) == len(one.losses) * (epochs - stop) // epochs
        assert one.losses[-len(two.losses) :] == two.losses
        assert_same(weights(whole), weights(resumed))


def checkpoint_of(path) -> dict[str, torch.Tensor]:
    return torch.load(next(path.rglob("*.ckpt")), weights_only=True)["state_dict"]


def inputs_of(batch):
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def rates_of(trainer, module) -> set[float]:
    """Peak learning rates of a module's parameters; fails where one is not trained."""
    rates = {id(p): group["initial_lr"] for group in trainer.optimizers[0].param_groups for p in group["params"]}
    return {rates[id(parameter)] for parameter in module.parameters()}
