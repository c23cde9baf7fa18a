"""The objects of a run, made from its configuration."""

import pytest
from omegaconf import OmegaConf

from kd.config import build, targets
from kd.config.compose import composed
from kd.config.make import make
from kd.errors import KDError


def test_losses_come_as_a_list_with_weights_and_temperature():
    config = composed(["loss=[soft_target,logit_mse]", "loss.logit_mse.weight=0.7", "temperature=4"])
    terms = build.losses(config, 2)
    assert list(terms) == ["soft_target", "logit_mse"]
    assert terms["logit_mse"].weight == 0.7 and terms["soft_target"].temperature == 4
    assert composed(["loss=[]"]).loss == {}


def test_a_student_under_a_million_parameters_is_configuration_only():
    """BiLSTM 2 x 64 over 12,000 x 64, as in the published under-1-M results."""
    config = composed(["student.embedding_size=64", "student.hidden_size=64", "student.num_layers=2"])
    model = build.new_student(make(config.student, vocab_size=12_000, num_labels=2, pad_token_id=0))
    assert 900_000 < sum(p.numel() for p in model.parameters()) < 1_000_000


def test_the_options_of_a_method_are_checked():
    assert build.method_options(composed(["method=joint", "method.copies=2"])).copies == 2
    with pytest.raises(KDError, match=r"^method\.copies must be a whole number in \[0, 100\], found -1"):
        build.method_options(composed(["method=joint", "method.copies=-1"]))


def test_the_function_that_reads_the_rows_gets_the_keys_that_it_takes(tmp_path, monkeypatch):
    (tmp_path / "my_rows.py").write_text(
        "def few(path, text='x'): return path, text\ndef all_of_them(path, **others): return sorted(others)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(targets.MODULES, "")
    words = ["modules=[my_rows]", "data.path=here", "data.text=title"]
    assert build.splits(composed([*words, "data._target_=my_rows.few"])) == ("here", "title")
    others = build.splits(composed([*words, "data._target_=my_rows.all_of_them"]))
    with pytest.raises(KDError, match=r"transfer: expected a data set that reads data\.unlabelled"):
        build.splits(composed([*words, "data._target_=my_rows.few", "transfer=[halves]"]))
    assert {"text", "label", "limit", "stream"} <= set(others)
    assert not {"name", "batch_size", "max_length", "shard_rows", "_target_"} & set(others)


def test_the_learning_rate_follows_the_global_batch():
    assert build.optimizer(composed([])).keywords["lr"] == composed([]).optim.optimizer.lr
    config = composed(
        ["optim.scale=linear", "optim.reference_batch=32", "data.batch_size=64", "optim.optimizer.lr=0.5"]
    )
    assert build.optimizer(config).keywords["lr"] == 1


def test_data_without_the_function_that_reads_it_is_refused():
    with pytest.raises(KDError, match=r"data\._target_: expected a class"):
        build.reads(OmegaConf.create({"data": {"text": "text"}}), "text")
