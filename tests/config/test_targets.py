"""Which code a configuration may name: classes of kd and of a few libraries, and nothing that they import."""

import sys

import pytest
from omegaconf import OmegaConf

from kd.config import build, targets
from kd.config.make import make
from kd.errors import KDError

MARK = "marker"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    """No name leaves the marker there, and nothing stays trusted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(targets.MODULES, "")
    yield
    assert not (tmp_path / MARK).exists()


EVIL = [
    *("os.system", "os.mkdir", "subprocess.run", "builtins.eval", "pathlib.Path.mkdir", "evil.Evil", "Evil", "", None),
    *("torch.load", "torch.hub.load", "torch.serialization.load", "torch.os.system", "torch.jit.load", "torch.save"),
    *("torch.utils.cpp_extension.load", "torch.package.PackageImporter", "torch.multiprocessing.spawn"),
    *(
        "torch.nn.modules.module.functools.partial",
        "torch.nn.Module.load_state_dict",
        "torch.optim.optimizer.functools",
    ),
    *("lightning.pytorch.cli.instantiate_class", "lightning.LightningModule.load_from_checkpoint"),
    *("lightning.pytorch.callbacks.model_checkpoint.os.system", "lightning.seed_everything", "lightning.os"),
    *("lightning.pytorch.callbacks.model_checkpoint.shutil.rmtree", "lightning.pytorch.callbacks.timer.timedelta"),
    *("transformers.pipeline", "transformers.AutoTokenizer.from_pretrained", "transformers.AutoModel"),
    *("transformers.dynamic_module_utils.get_class_from_dynamic_module", "transformers.TrainingArguments"),
    *("hydra.utils.get_method", "hydra.utils.get_class", "hydra.utils.instantiate", "hydra.utils.call"),
    *(
        "kd.storage.files.write_text",
        "kd.teacher.teacher.stored",
        "kd.teacher.teacher.shutil.rmtree",
        "kd.teacher.teacher.partial",
        "kd.cli.main",
    ),
    *(
        "kd.sweep.server.load",
        "kd.sweep.client.ForkServer",
        "kd.storage.assets.fetch",
        "kd.losses.logits.torch.hub.load",
    ),
    *(
        "kd.models.bow.Path",
        "kd.features.mapper.importlib",
        "kd.losses.nothing.Here",
        "kd.teacher.teacher.labelled_rows",
    ),
    *("optuna.samplers.TPESampler.sample_relative", "optuna.create_study", "torchmetrics.utilities.imports.os.system"),
]


@pytest.mark.parametrize("name", EVIL)
def test_no_configuration_may_name(name, tmp_path):
    with pytest.raises(KDError, match=r"no configuration may call|there is no"):
        make(OmegaConf.create({"_target_": name}))
    with pytest.raises(KDError, match=r"no configuration may call|there is no"):
        build.method_class(OmegaConf.create({"method": {"_target_": name}}))


def test_nothing_is_imported_before_it_is_refused(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text(f"import os\nos.mkdir({MARK!r})\nclass Evil: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(KDError):
        targets.check(OmegaConf.create({"_target_": "evil.Evil"}))
    with pytest.raises(KDError):
        make(OmegaConf.create({"_target_": "evil.Evil"}))
    assert "evil" not in sys.modules


def test_of_allowed_packages_only_what_they_define_is_called(tmp_path):
    """A function of ours that would remove a folder, and a module that a class of ours has at hand."""
    precious = tmp_path / "precious"
    precious.mkdir()
    with pytest.raises(KDError, match=r"got 'kd\.teacher\.teacher\.stored'"):
        make(
            OmegaConf.create(
                {"_target_": "kd.teacher.teacher.stored", "folder": str(tmp_path), "key": "precious", "train": None}
            )
        )
    with pytest.raises(KDError, match=r"got 'kd\.teacher\.teacher\.shutil\.rmtree'|there is no"):
        make(OmegaConf.create({"_target_": "kd.teacher.teacher.shutil.rmtree", "path": str(precious)}))
    assert precious.exists()


@pytest.mark.parametrize("place", ["", "nested"])
def test_arguments_are_given_by_name(tmp_path, place):
    """Given by their order, a folder would escape every check that looks at names."""
    node = {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "_args_": [str(tmp_path), "x", "val/loss"]}
    config = {"_target_": "lightning.pytorch.callbacks.Timer", place: node} if place else node
    with pytest.raises(KDError, match="_args_: expected arguments by name"):
        make(OmegaConf.create(config))


def test_ones_own_modules_count_on_the_command_line(tmp_path, monkeypatch):
    (tmp_path / "own_loss.py").write_text(
        "from os import mkdir\nfrom kd.losses.logits import LogitMSE\n"
        "class Mine(LogitMSE): pass\ndef make(): return 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    node = OmegaConf.create({"_target_": "own_loss.Mine", "weight": 1.0})
    with pytest.raises(KDError, match=r"modules=\[own_loss\]"):
        make(node)
    targets.trust(["own_loss"])
    assert type(make(node)).__name__ == "Mine"
    assert make(OmegaConf.create({"_target_": "own_loss.make"})) == 3
    with pytest.raises(KDError, match="no configuration may call"):
        make(OmegaConf.create({"_target_": "own_loss.mkdir", "path": MARK}))  # not of its own
    targets.trust([])
    with pytest.raises(KDError):
        make(node)
    with pytest.raises(KDError, match="expected names of modules"):
        targets.trust(["*"])
    for name in ("no_such", "no.such", "os.such"):
        with pytest.raises(KDError, match=f"modules: expected modules that can be imported, found no '{name}'"):
            targets.trust([name])
