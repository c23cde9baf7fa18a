"""`kd train` on several devices: one process and two ranks resume each other's runs, with the same result."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from kd.config import build
from kd.config.check import check
from kd.config.compose import composed
from kd.config.make import resolve
from kd.config.trainer import make_trainer
from kd.errors import KDError
from kd.run.directory import RunDirectory
from kd.run.identity import identity
from tests.conftest import make_reviews, run_kd
from tests.end_to_end.test_sweep import OWN, tests_are_found, trouble  # noqa: F401  the first is a fixture

TO_STUDENT = ["method=feature_mapping", "method.direction=to_student", "loss=[]"]
TWO = ["data.batch_size=8", "trainer.devices=2"]


@pytest.fixture
def command(options) -> list[str]:
    """Return the command of a run without dropout."""
    still = ["student=dan", "student.dropout=0", "student.word_dropout=0", "balance.calibrate=true"]
    return ["train", *options, *still, "trainer.max_epochs=3", "trainer.log_every_n_steps=1"]


def start(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "kd", *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240)


@pytest.mark.slow
def test_a_run_of_two_ranks_resumes_in_one_process(command):
    kill = [*command, OWN, trouble("0:kill"), "hydra.run.dir=two"]
    killed = start(*kill, *TWO)
    assert killed.returncode == -9, killed.stdout
    said = r"global batch: 16 rows in an optimizer step \(8 on a device x 1 accumulated x 2 devices\)"
    assert len(re.findall(said, killed.stdout)) == 1, "rank 0 says it"
    Path("flag").unlink()  # nothing kills it again
    assert_resumes(lambda: run_kd(*kill), "two", command)


@pytest.mark.long
def test_a_run_of_one_process_resumes_on_two_ranks_of_fsdp(command):
    broken = [*command, OWN, trouble("0:raise"), "hydra.run.dir=one"]
    with pytest.raises(RuntimeError, match="broken on purpose"):
        run_kd(*broken)
    Path("flag").unlink()
    sharded = [*broken, *TWO, "trainer=fsdp", "trainer.accelerator=cpu"]
    assert_resumes(lambda: start(*sharded).returncode, "one", command)


def assert_resumes(again: Callable[[], int], place: str, command: list[str]) -> None:
    """Resume a run that ended in its second epoch; it must equal one that was not disturbed."""
    before = torch.load(f"{place}/checkpoints/last.ckpt", weights_only=True)
    assert run_kd(*command, "hydra.run.dir=undisturbed") == 0
    assert again() == 0
    assert before["epoch"] == 0 and not Path(place, "previous").exists(), "it resumed"
    assert_same_run(Path(place), Path("undisturbed"))
    assert files(place) <= files("undisturbed"), "rank 1 writes nothing"


def files(place: str) -> set[Path]:
    return {path.relative_to(place) for path in Path(place).rglob("*") if path.is_file()}


def assert_same_run(found: Path, expected: Path) -> None:
    curves = [pandas.read_csv(place / "metrics.csv") for place in (found, expected)]
    assert set(curves[0]["epoch"]) == {0, 1, 2} and len(curves[0]) == len(curves[1])
    pandas.testing.assert_frame_equal(*curves, atol=1e-4, rtol=1e-4, check_like=True)
    figures, wanted = (RunDirectory(place).metrics() for place in (found, expected))
    assert figures["global_batch"] == wanted["global_batch"] == 16
    for split in ("validation", "test"):
        assert figures[split]["nll"] == pytest.approx(wanted[split]["nll"], abs=1e-4)
    best = [torch.load(place / "checkpoints/best.ckpt", weights_only=True) for place in (found, expected)]
    for name, value in best[1]["state_dict"].items():
        torch.testing.assert_close(best[0]["state_dict"][name], value, atol=1e-4, rtol=1e-3)


def test_hardware_does_not_change_the_identity():
    def named(*overrides: str) -> str:
        return identity(resolve(bare("data.batch_size=32", *overrides)))

    one = named()
    assert (
        one
        == named("data.batch_size=16", "trainer=ddp")
        == named("data.batch_size=8", "trainer=fsdp", "compile=true", "trainer.num_nodes=2")
    )
    assert one == named("data.batch_size=8", "trainer.accumulate_grad_batches=4")
    assert one != named("trainer=ddp") and one != named("trainer.precision=bf16-mixed")
    hints = ["method=feature_mapping", "loss=[rkd]"]  # a loss that compares the rows of a batch on each device
    assert named(*hints) != named(*hints, "data.batch_size=16", "trainer=ddp")


def bare(*overrides: str):
    config = composed(overrides)
    OmegaConf.set_struct(config, False)
    del config.choices
    return config


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["trainer=fsdp", "callbacks=[ema]"], "no whole model to average"),
        (["trainer=fsdp", "compile=true"], "never tried together"),
        (["trainer=fsdp", "balance/weighting=pcgrad"], "compares gradients of whole models"),
        (["trainer=deepspeed"], "neither resumes from nor takes the best epoch from"),
        (["optim.scale=cube"], "optim.scale: expected none, linear or sqrt"),
        (["teacher.answer_precision=fp8"], "teacher.answer_precision: expected 32-true or bf16-true"),
        (
            ["method=feature_mapping", "method.direction=to_student", "teacher.answer_precision=bf16-true"],
            "leave teacher",
        ),
    ],
)
def test_what_cannot_go_together_is_refused(overrides, said):
    with pytest.raises(KDError, match=said):
        config = bare(*overrides)
        config.choices = {"method": "chosen", "embeddings": "pca"}  # Hydra sets it only inside a run
        check(config)


@pytest.mark.parametrize(("name", "rows"), [("training", [3, 9]), ("validation", [9, 3])])
def test_fewer_rows_than_ranks_are_refused(fresh_options, capsys, name, rows):
    for file, count, seed in zip(("train", "validation", "test"), [*rows, 9], (0, 1, 2), strict=True):
        lines = [f"{text},{('negative', 'positive')[label]}" for text, label in make_reviews(count, seed)]
        Path(f"{file}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    own = [option for option in fresh_options if not option.startswith(("data.path", "teacher"))]
    files = [f"data.{file}={file}.csv" for file in ("train", "validation", "test")]
    alone = ["method=supervised", "teacher=none", "embeddings=random", "tokenizer=words", "student=dan"]
    assert run_kd("train", *own, *files, *alone, "trainer.devices=4") == 2
    assert f"expected a {name} row for each of the 4 devices, found 3 rows" in capsys.readouterr().err


def test_the_learning_rate_follows_the_global_batch():
    config = composed(["optim.scale=sqrt", "trainer=ddp", "trainer.accumulate_grad_batches=2"])
    made = build.optimizer(config)([torch.nn.Parameter(torch.zeros(1))])
    assert made.param_groups[0]["lr"] == pytest.approx(2 * config.optim.optimizer.lr)
    assert build.optimizer(composed(["trainer=ddp"])).keywords["lr"] == config.optim.optimizer.lr, "by default it stays"


@pytest.mark.parametrize("trainer", ["ddp", "fsdp"])
def test_trainers_of_several_devices_are_made(trainer, tmp_path):
    made = make_trainer(composed([f"trainer={trainer}", "trainer.accelerator=cpu", "trainer.num_nodes=2"]), tmp_path)
    assert (
        made.world_size == 4 and type(made.strategy).__name__ == {"ddp": "DDPStrategy", "fsdp": "FullySharded"}[trainer]
    )


def test_a_teacher_labels_in_half_precision(options):
    """Each precision has its own cache, and a live teacher gives the cached logits. The student stays in 32 bits."""
    short = ["train", *options, "student=dan", "student.dropout=0", "student.word_dropout=0", "trainer.max_epochs=1"]
    assert run_kd(*short, "hydra.run.dir=full") == 0
    half = [*short, "teacher.answer_precision=bf16-true"]
    assert run_kd(*half, "hydra.run.dir=half") == 0
    assert run_kd(*half, "hydra.run.dir=live", "cache.use=false") == 0
    answers = {
        place: np.stack(pandas.read_parquet(f"{place}/predictions.parquet")["teacher_logits"])
        for place in ("full", "half", "live")
    }
    assert 0 < np.abs(answers["full"] - answers["half"]).max() < 0.1
    np.testing.assert_allclose(answers["half"], answers["live"], atol=0.05)
    weights = load_file("half/model/model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32}
