"""Names, directories and arguments of jobs."""

import pytest
from omegaconf import OmegaConf

from kd.errors import KDError
from kd.run.directory import RunDirectory
from kd.sweep.jobs import Job, constant_keys, known_runs, parsed, refuse_clashes, slug
from tests.sweep.conftest import job_at


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["seed=0", "method=distillation"], "seed-0_distillation"),
        (["student.hidden_size=64", "loss=[hint,rkd]"], "hidden_size-64_hint-rkd"),
        (["balance/weighting=pcgrad", "optim.optimizer.lr=0.0012345678"], "weighting-pcgrad_lr-0.001235"),
        (["outputs=/a b/c", "hydra.sweep.dir=x", "constant=1"], "a-b-c"),
        ([f"student.{'x' * 100}=1"], "x" * 80),
    ],
)
def test_a_directory_is_named_after_what_varies(overrides, name):
    assert slug(overrides, {"constant"}) == name


def test_keys_with_one_value_are_constant():
    overrides = ["seed=0,1", "alpha=0.5", "+trainer.limit_train_batches=3", "loss=[a,b]", "x=range(0,3)"]
    assert constant_keys(overrides) == {"alpha", "trainer.limit_train_batches", "loss"}
    assert [one.key_or_group for one in parsed(overrides)] == [
        "seed",
        "alpha",
        "trainer.limit_train_batches",
        "loss",
        "x",
    ]


def test_the_arguments_of_a_job_start_the_single_run(tmp_path):
    given = {"overrides": {"hydra": ["hydra.mode=MULTIRUN", "hydra.run.dir=x", "hydra/launcher=local"]}}
    overrides = ["seed=1", "hydra/launcher=local"]
    job = Job(0, overrides, OmegaConf.create({"hydra": given}), "id", tmp_path / "it's")
    directory = str(tmp_path / "it's").replace("'", "\\'")
    assert job.arguments(["--config-dir", "own"]) == [
        *("train", "--config-dir", "own", "hydra/launcher=local", "seed=1"),
        *("hydra.mode=RUN", f"hydra.run.dir='{directory}'"),
    ]


def test_devices_and_readers_come_from_the_configuration(tmp_path):
    def job(**config) -> Job:
        return Job(0, [], OmegaConf.create(config), "id", tmp_path)

    assert [job(trainer={"devices": devices}).devices for devices in (3, "auto", -1)] == [3, 1, 1]
    assert job(trainer={"accelerator": "auto"}).on_gpu and not job(trainer={"accelerator": "cpu"}).on_gpu
    one = job(data={"path": "a"}, seed=0, hydra={"x": 1})
    assert one.task == {"data": {"path": "a"}, "seed": 0}, "Hydra's own keys are left out"
    assert one.reads == job(data={"path": "a"}, seed=1).reads != job(data={"path": "b"}, seed=0).reads


def test_two_runs_in_one_directory_are_refused(tmp_path):
    one, other = (job_at(tmp_path, number, overrides=[f"seed={number}"]) for number in (0, 1))
    refuse_clashes([one, other, one])
    other.directory = one.directory
    with pytest.raises(KDError, match=r"two different runs .* \(seed=0; seed=1\)"):
        refuse_clashes([one, other])


def test_a_finished_run_is_known_before_an_unfinished_one(tmp_path):
    for name, state in (("a", "running"), ("b", "done"), ("c", "failed"), ("previous/d", "done")):
        (tmp_path / name).mkdir(parents=True)
        RunDirectory(tmp_path / name).set_status(state, identity="one")
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "status.json").write_text("{")
    assert known_runs(tmp_path) == {"one": (tmp_path / "b").absolute()}
