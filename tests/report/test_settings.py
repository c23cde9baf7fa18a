"""The settings that tell runs apart: all that the identity counts."""

import pytest

from kd.commands.cache_build import composed
from kd.config.make import resolve
from kd.report.settings import Named, of_files, settings, whole
from kd.run.identity import identity


@pytest.fixture
def describe(said):
    """A function that returns the settings and the identity of a run with some overrides."""

    def describe(*more: str) -> tuple[dict, str]:
        config = resolve(composed([*said, *more]))
        return settings(config), identity(config)

    return describe


def test_runs_of_one_global_batch_are_not_told_apart(describe):
    halves = "data.batch_size=8"
    assert describe("method=distillation") == describe("method=distillation", halves, "trainer=ddp")
    assert describe("method=distillation") == describe(
        "method=distillation", halves, "trainer.accumulate_grad_batches=2"
    )
    assert describe("method=distillation")[0] != describe("method=distillation", halves)[0]
    compares = ("method=distillation", "loss=[rkd]")
    assert describe(*compares)[0] != describe(*compares, halves, "trainer=ddp")[0]
    supervised, distilled = describe("method=supervised")[0], describe(*compares)[0]
    assert supervised["global_batch"] == distilled["global_batch"] == 16


def test_the_transfer_set_tells_runs_apart(describe):
    """By its steps and their options, not by how the texts of a set are counted."""
    none, rules = describe()[0], describe("transfer=[rules,halves]")[0]
    assert (none["transfer"], rules["transfer"]) == ("none", "rules+halves")
    assert not [key for key in none if key.startswith("transfer")][1:]
    assert describe("transfer=[rules]", "transfer_rows=0", "transfer_seed=3") == describe()
    assert describe("transfer=[rules]")[0] != describe("transfer=[rules]", "transfer.rules.rounds=2")[0]


def test_two_is_two_however_it_is_written(describe):
    """The defaults are floats, and a command line says temperature=2."""
    (one, name), *others = [describe(*more) for more in ([], ["temperature=2"], ["temperature=2.0"])]
    assert all(repr(sorted(other.items())) == repr(sorted(one.items())) for other, _ in others)
    assert {other_name for _, other_name in others} == {name}


@pytest.mark.parametrize(
    "more",
    [
        ["optim.optimizer._target_=torch.optim.Adam"],  # the same options as AdamW
        ["loss.soft_target.temperature=3"],
        ["balance.alpha.value=0.1"],
        ["data.source.text=title"],
        ["cache.use=false"],
        ["callbacks.best.mode=min"],
        ["+callbacks.progress_of_mine._target_=lightning.pytorch.callbacks.Timer"],  # not callbacks.progress
        ["loss=[rkd]", "trainer.devices=2", "data.batch_size=8"],
    ],
)
def test_what_the_identity_counts_tells_runs_apart(describe, more):
    first = ["loss=[rkd]", "trainer.accumulate_grad_batches=2", "data.batch_size=8"] if "loss=[rkd]" in more else []
    (one, name), (other, other_name) = describe(*first), describe(*more)
    assert name != other_name and one != other


@pytest.mark.parametrize("more", ["threads=2", "resume=false", "cache.max_gb=3", "teacher.labelling_batch_size=4"])
def test_what_the_identity_leaves_out_does_not(describe, more):
    assert describe() == describe(more)


def test_an_option_that_came_later_is_not_told_from_its_absence(said):
    config = resolve(composed(said))
    older = config | {"data": {key: value for key, value in config["data"].items() if key != "stream"}}
    assert settings(config) == settings(older) and identity(config) == identity(older)


def test_files_are_compared_by_their_content():
    environment = {"data": {"train": "1", "validation": "2"}, "teacher": {"checksum": "abcdefghi"}}
    metrics = {"teacher_cost": {"training_seconds": None}}
    one = of_files({"data": {"path": "/here/a.csv"}}, environment, metrics)
    assert str(one["data.rows"]).startswith("a.csv@") and str(one["teacher.weights"]) == "abcdefg"
    assert one == of_files({"data": {"path": "/there/b.csv"}}, environment, metrics)
    for changed in ({"train": "3"}, {"validation": "3"}, {"transfer": {"sha256": "3"}}):
        other = {**environment, "data": environment["data"] | changed}
        assert one["data.rows"] != of_files({"data": {"path": "/here/a.csv"}}, other, metrics)["data.rows"]
    trained_here = {"teacher_cost": {"training_seconds": 3.0}}
    assert list(of_files({"data": {}}, environment, trained_here)) == ["data.rows"]


def test_a_name_is_shown_and_a_value_is_compared():
    mine, theirs = Named("mine.AdamW", "AdamW"), Named("torch.optim.AdamW", "AdamW")
    assert mine != theirs and repr(mine) != repr(theirs) and str(mine) == str(theirs)
    assert whole(mine) == "mine.AdamW" and whole("1") != whole(1)
