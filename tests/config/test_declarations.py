"""A configuration held against its declarations: every mistake is found, in one go, and named as the user set it."""

import copy
import functools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from kd.config.check import check_options
from kd.config.compose import composed
from kd.config.declarations import declarations, option_mistakes
from kd.config.folder import configuration_folder
from kd.errors import KDError

ROOT = configuration_folder().parent


def mistakes(*overrides: str) -> list[str]:
    config = composed(overrides)
    return list(option_mistakes(config, declarations(config)))


def test_the_default_configuration_has_none():
    assert mistakes() == []


# Faults 6, 8 and 21 of those that were found by trying.
WRONG = [
    *("data.deduplicate=no", "student.freeze_embeddings=no", "resume=off", "rerun=1", "cache.use=yes"),
    *("data.max_length=2", "data.batch_size=0", "data.limit=0", "student.embedding_size=0", "student.dropout=1"),
    *("data.validation_share=1", "label_smoothing=1", "temperature=0", "alpha=1.5", "alpha=nan", "temperature=inf"),
    *("objective=null", "objective=true", "objective=speed", "outputs=5", "outputs=null", "sweep=7"),
    *("trainer.max_epochs=0", "trainer.max_epochs=1.5", "trainer.log_every_n_steps=0", "trainer.devices=auto"),
    *("trainer.devices=100000", "trainer.num_nodes=0", "+trainer.overfit_batches=1", "+trainer.fast_dev_run=true"),
    *("+trainer.limit_train_batches=0", "+trainer.max_steps=0", "trainer.gradient_clip_val=-1", "threads=100000"),
    *("optim.optimizer.lr=0", "optim.optimizer.betas=[]", "optim.optimizer.weight_decay=-1", "optim.scale=cubic"),
    *("callbacks.best.dirpath=5", "callbacks.best.save_top_k=many", "seed=-1", "seed=4294967296", "seed=0.5"),
    *("teacher.name_or_path=false", "teacher.epochs=0", "teacher.fine_tune=maybe", "teacher.max_length=2"),
    *("temperature=1e30", "temperature=1e-9", "student.dropout=0.999", "label_smoothing=0.99", "embeddings.std=1e-30"),
    *("student.hidden_size=100000", "student.num_layers=100000", "data.max_length=1000000000", "objective=[]"),
    *("optim.optimizer.eps=1e30", "optim.optimizer.lr=1e30", "+trainer.limit_val_batches=0", "cache.max_gb=1e30"),
    *("+trainer.barebones=true", "trainer.use_distributed_sampler=true", "callbacks.best.save_top_k=-2"),
    *("loss.soft_target.weight=1e30", "teacher.learning_rate=1e30", "teacher.warm_up=1", "trainer.num_nodes=5000"),
    *(
        "loss.soft_target.weight=-1",
        "loss.soft_target.weight=null",
        "tokenizer.max_size=0",
    ),
]


@pytest.mark.parametrize("override", WRONG)
def test_a_value_of_the_wrong_kind_is_named_as_it_was_set(override):
    (found,) = mistakes(override)
    key = override.lstrip("+").partition("=")[0]
    assert found.startswith(f"{key}: expected "), found
    assert ", got " in found


@functools.cache
def joint() -> DictConfig:
    config = composed(["method=joint", "student=textcnn"])
    OmegaConf.set_struct(config, False)
    return config


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.floats(allow_nan=True), st.text("abc", max_size=3), st.just([])
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_a_declared_option_is_set_to_it_fits_or_is_one_sentence(data):
    config = copy.deepcopy(joint())
    declared = [(d, name) for d in declarations(config) for name in d.options]
    declaration, name = data.draw(st.sampled_from(declared))
    node = declaration.node(config)
    if name not in node or OmegaConf.is_dict(node[name]):
        return
    value = data.draw(JUNK)
    node[name] = value
    found = list(option_mistakes(config, [declaration]))
    fits = declaration.options[name].fits(value)
    assert len(found) == (0 if fits else 1)
    assert fits or found[0].startswith(f"{declaration.key(name)}: expected ")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("+student.dropot=1", "student.dropot: there is no such option; did you mean student.dropout"),
        ("+temprature=3", "temprature: there is no such option; did you mean temperature"),
        ("+cache.foo=3", "cache.foo: there is no such option"),
        ("+method.copies=2", "method.copies: there is no such option"),
        ("+data.batchsize=3", "data.batchsize: there is no such option; did you mean data.batch_size"),
        ("+trainer.maxepochs=3", "trainer.maxepochs: there is no such option; did you mean trainer.max_epochs"),
        ("+method.layers=top", "method.layers: there is no such option"),
        ("+callbacks.best.bogus=1", "callbacks.best.bogus: there is no such option"),
        ("+callbacks.x={}", "callbacks.x: expected a node"),
        ("+peers.a=3", "peers.a: expected a node"),
        ("loss.soft_target=3", "loss.soft_target: expected a node"),
        ("optim.optimizer=null", "optim.optimizer: expected a choice, got null"),
        ("student.dropot=1", "student.dropot: there is no such option; did you mean student.dropout"),
    ],
)
def test_what_no_declaration_has_is_refused(override, words):
    with pytest.raises(KDError, match=words):
        check_options(composed([override]))


@pytest.mark.parametrize("content", [b"a: [1\n", b"a: \xe9\n", b"a:\n\tb: 1\n"], ids=["broken", "latin-1", "tab"])
def test_a_file_of_ones_own_that_is_no_yaml_is_one_sentence(content, tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_bytes(content)
    with pytest.raises(KDError, match=r"expected a YAML file in UTF-8 at '.*mine\.yaml', found one that cannot be"):
        composed(["experiment=mine"], tmp_path)
