"""Every teacher offers what the rest of the program uses, and its options are declared with a range and a meaning."""

import dataclasses
from functools import partial

import pytest
import yaml
from transformers import BertConfig

from kd.config.folder import configuration_folder
from kd.errors import KDError, OptionError
from kd.options.declared import options_of
from kd.storage.model_folder import set_labels
from kd.teacher.assistant import Assistant
from kd.teacher.base import AnyReadyTeacher, AnyTeacher
from kd.teacher.ensemble import Ensemble, ReadyEnsemble
from kd.teacher.ready import ReadyTeacher
from kd.teacher.teacher import Teacher
from tests.teacher.conftest import RECIPE


def assistant_of(teacher: Teacher) -> Assistant:
    return Assistant(teacher, partial(BertConfig), alpha=0.9, temperature=2.0, **RECIPE)


@pytest.mark.parametrize(
    ("interface", "kinds"),
    [(AnyTeacher, (Teacher, Assistant, Ensemble)), (AnyReadyTeacher, (ReadyTeacher, ReadyEnsemble))],
)
def test_every_teacher_has_the_members_of_its_interface(interface, kinds):
    members = {name for name in vars(interface) if not name.startswith("_")}
    for kind in kinds:
        assert members <= {*dir(kind), *(field.name for field in dataclasses.fields(kind))}, kind


@pytest.mark.parametrize("kind", [Teacher, Assistant, Ensemble])
def test_options_have_a_meaning_and_the_default_of_conf(kind):
    options = options_of(kind)
    assert options.keys() == {field.name for field in dataclasses.fields(kind)}
    assert all(option.meaning for option in options.values())
    file = {Teacher: "hf", Assistant: "assistant", Ensemble: "ensemble"}[kind]
    node = yaml.safe_load((configuration_folder() / "teacher" / f"{file}.yaml").read_text())
    for field in dataclasses.fields(kind):
        value = node.get(field.name)
        assert field.default in (dataclasses.MISSING, value), field.name
        if not (field.name in ("members", "model", "teacher") or str(value).startswith("${")):
            options[field.name].require(value)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("fine_tune", "yes", "true or false"),
        ("epochs", 0, "a whole number of at least 1"),
        ("batch_size", 2.5, "a whole number of at least 1"),
        ("labelling_batch_size", 0, "a whole number of at least 1"),
        ("max_length", 2, "a whole number of at least 3"),
        ("seed", -1, "a whole number in [0, 4294967296)"),
        ("learning_rate", 0.0, "a number above 0"),
        ("learning_rate", float("nan"), "a number above 0"),
        ("weight_decay", -0.1, "a number of at least 0"),
        ("warm_up", 1.0, "a number in [0, 0.95]"),
        ("gradient_clip", None, "a number of at least 0"),
        ("precision", "16-true", "32-true, bf16-mixed, 16-mixed or bf16-true"),
        ("answer_precision", "fp8", "32-true or bf16-true"),
        ("answer_device", "cuda", "cpu or null"),
        ("alpha", 1.1, "a number in [0, 1]"),
        ("temperature", 0, "a number in [0.01, 1000]"),
    ],
)
def test_values_outside_an_options_range_are_refused(teacher, name, value, expected):
    made = assistant_of(teacher) if name in ("alpha", "temperature") else teacher
    with pytest.raises(OptionError) as refused:
        dataclasses.replace(made, **{name: value})
    assert str(refused.value).startswith(f"{name} must be {expected}, found {value!r}; correct {name}")


def test_one_teacher_has_no_member_to_choose(teacher):
    for single in (teacher, assistant_of(teacher)):
        assert single.sources(None) == single.sources("all") == {"": single}
        with pytest.raises(
            KDError,
            match=r"method\.features_from=second names a member of an ensemble, and there is one teacher; leave",
        ):
            single.sources("second")


def test_labels_are_named_in_both_directions():
    config = BertConfig(num_labels=3)
    set_labels(config, ["no", "yes"])
    assert (config.id2label, config.label2id) == ({0: "no", 1: "yes"}, {"no": 0, "yes": 1}) and config.num_labels == 2
