"""Compose a configuration from overrides."""

import re

import pytest

from kd.config.compose import composed
from kd.errors import KDError


def test_modules_are_looked_at_before_anything_is_composed_of_them():
    with pytest.raises(KDError, match=r"modules: expected a list of names, .* got True"):
        composed(["modules=true"])


def test_overrides_and_the_users_own_files_are_composed(tmp_path):
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "mine.yaml").write_text("_target_: kd.models.bow.DANConfig\nhidden_size: 7\n")
    config = composed(["student=mine", "seed=3"], tmp_path)
    assert (config.student.hidden_size, config.seed, config.choices.student) == (7, 3, "mine")
    assert "hydra" not in config


@pytest.mark.parametrize(
    "override", ["student=[dan,mlp]", "balance/alpha=[constant,linear]", "+student@peers.a=[dan,mlp]"]
)
def test_a_group_of_one_choice_takes_no_list(override):
    with pytest.raises(KDError, match=r"expected one choice, got \[\w+,\w+\]; write one name"):
        composed([override])
    assert list(composed(["loss=[soft_target,logit_mse]"]).loss) == ["soft_target", "logit_mse"]


@pytest.mark.parametrize("override", ["student=lstm", "studnt=dan", "student.width=3", "seed="])
def test_what_hydra_refuses_is_one_sentence(override):
    with pytest.raises(KDError) as error:
        composed([override, "seed=[1"] if override == "seed=" else [override])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("student=bilstmm", "student=bilstmm: expected a choice of student (bag, bilstm, "),
        ("student=bilstmm", "did you mean bilstm?"),
        ("loss=[soft_targett]", "did you mean soft_target?"),
        ("+student@peers.a=dann", "did you mean dan?"),
        ("balance/alpha=linar", "did you mean linear?"),
        ("tokenizer=nothing", "choose one of them"),
        ("data.pth=x", "data.pth: there is no such option; did you mean data.path?"),
        ("studnt=dan", "did you mean student?"),
        ("max_epochs=2", "did you mean trainer.max_epochs?"),
        ("batch_size=2", "did you mean teacher.batch_size or data.batch_size?"),
        ("stu/dent=x", "stu/dent: there is no such option"),
        ("zzz=3", "kd train --help lists the options"),
    ],
)
def test_what_was_meant_is_said(override, meant):
    with pytest.raises(KDError, match=re.escape(meant)):
        composed([override])


def test_how_a_value_is_quoted_is_said():
    with pytest.raises(KDError, match=r"found data\.where=\{评论: 1\}, which cannot be read; .*\"data\.path='data/my"):
        composed(["data.where={评论: 1}"])
    with pytest.raises(KDError, match="expected the name of a choice for each group, found null; leave the group out"):
        composed(["experiment=null"])
