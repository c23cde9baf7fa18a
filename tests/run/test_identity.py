"""The identity of a run: what affects its result counts, and nothing else."""

import pytest

from kd.config.compose import composed
from kd.config.make import resolve
from kd.report.settings import counts
from kd.run.identity import LATER_OF_TEACHERS, global_batch, identity, is_later_default, number, unread


def of(*overrides: str) -> str:
    return identity(resolve(composed(overrides)))


def test_a_run_of_before_keeps_its_name():
    before = {"method": {"_target_": "x"}, "data": {"path": "y", "source": {"path": "y"}}}
    now = {"method": {"_target_": "x"}, "data": {"path": "y", "source": {"path": "y", "stream": False}}}
    now["data"] |= {"stream": False, "shard_rows": 32768, "delimiter": None, "quoting": None, "header": None}
    assert identity(before) == identity(now)
    now["data"]["stream"] = True
    assert identity(before) != identity(now)


@pytest.mark.parametrize(
    "overrides",
    [
        ["outputs=elsewhere", "threads=3", "resume=false", "rerun=true", "compile=true", "sweep=mine"],
        ["trainer.accelerator=gpu", "callbacks=[checkpoint]", "teacher.labelling_batch_size=3"],
        ["alpha=0.5", "temperature=2", "data.stream=false", "+data.shard_rows=32768"],
        ["data.batch_size=32", "trainer.accumulate_grad_batches=2"],
        ["mapper=mlp"],
    ],
    ids=" ".join,
)
def test_what_does_not_affect_the_result_is_left_out(overrides):
    assert of(*(word.lstrip("+") for word in overrides)) == of()


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "temperature=3",
        "trainer.precision=bf16-mixed",
        "data.batch_size=32",
        "teacher.epochs=3",
        "data.limit=9",
    ],
)
def test_what_affects_the_result_counts(override):
    assert of(override) != of()


def test_the_steps_of_a_transfer_set_count(tmp_path):
    """Their options, their seed, the files that they read; nothing of it without a step."""
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("one")
    documents = ["transfer=[documents]", f"transfer.documents.path={corpus}"]
    names = {of(), of(*documents), of("transfer=[rules]"), of("transfer=[rules]", "transfer.rules.rounds=2")}
    names |= {of("transfer=[rules]", "transfer_seed=1"), of("transfer=[rules]", "transfer_rows=9")}
    assert len(names) == 6
    before = of(*documents)
    corpus.write_text("two")
    assert of(*documents) != before
    assert of("transfer_seed=1", "transfer_rows=9") == of("transfer=[rules]", "transfer_rows=0") == of()


def test_a_student_in_closed_form_reads_no_optimizer():
    bag = of("student=bag")
    unread = ["optim=adadelta", "trainer.max_epochs=3", "trainer.precision=bf16-mixed", "callbacks=[ema]"]
    for override in [*unread, "embeddings=random", "data.batch_size=8", "label_smoothing=0.1"]:
        assert of("student=bag", override) == bag != of(override), override
    for override in ("alpha=0.9", "student.ngrams=3", "tokenizer.min_count=2", "data.limit=9", "method=supervised"):
        assert of("student=bag", override) != bag, override


def test_a_term_that_compares_rows_counts_every_factor_of_the_batch():
    halves = "data.batch_size=32", "trainer.accumulate_grad_batches=2"
    assert of("loss=[rkd]", *halves) != of("loss=[rkd]")
    assert of("loss=[rkd]", "method=supervised", *halves) == of("loss=[rkd]", "method=supervised")


def test_files_count_by_their_content(tmp_path):
    places = [tmp_path / name for name in ("one.csv", "two.csv")]
    for place in places:
        place.write_text("text,label\n")
    one, two = (of("data=files", f"data.path={place}") for place in places)
    assert one == two
    places[1].write_text("text,label\na,1\n")
    assert of("data=files", f"data.path={places[1]}") != one


def test_files_of_a_pattern_count_by_their_content(tmp_path):
    for name in ("a-1.csv", "a-2.csv"):
        (tmp_path / name).write_text("text,label\n")
    pattern = f"data.train='{tmp_path}/a-*.csv'"
    one = of("data=files", pattern)
    assert one == of("data=files", f"data.train=[{tmp_path}/a-1.csv,{tmp_path}/a-2.csv]")
    (tmp_path / "a-2.csv").write_text("text,label\na,1\n")
    assert of("data=files", pattern) != one


def test_whole_numbers_of_the_loss_are_floats_and_others_are_not():
    assert number("alpha", 1) == 1.0 and type(number("alpha", 1)) is float
    assert type(number("trainer.limit_val_batches", 1)) is int and number("loss.a.flag", True) is True


def test_a_factor_that_is_known_later_gives_no_batch():
    assert global_batch({"data.batch_size": 8, "trainer.devices": 2}) == 16
    assert global_batch({"data.batch_size": 8, "trainer.devices": "auto"}) is None


def test_a_composition_reads_the_embeddings_only_for_a_mapper_that_is_fitted_to_them():
    for mapper, reads in (("linear", False), ("least_squares", True)):
        groups = unread(resolve(composed(["method=composition", f"mapper={mapper}"])))
        assert ("embeddings" not in groups) == ("choices.embeddings" not in groups) == reads


def test_a_run_of_before_has_the_settings_and_the_identity_of_the_default():
    """What the report counts and what the identity counts are one rule, also for options below a teacher."""
    assert all(is_later_default(f"teacher.members.one.{key}", value) for key, value in LATER_OF_TEACHERS.items())
    assert not is_later_default("teacher.seeds", 2) and not is_later_default("seeds", 1)
    assert not counts("teacher.average", {"teacher.average": 0.0})
    assert counts("teacher.average", {"teacher.average": 0.5})


def test_mixed_rows_count_every_factor_of_the_batch():
    halves = ("data.batch_size=32", "trainer.accumulate_grad_batches=2")
    assert of("method.mixup=0.2") != of("method.mixup=0.2", *halves)
    for option in ("r_drop", "consistency", "fair_weights"):
        assert of() != of(f"method.{option}=1") == of(f"method.{option}=1", *halves)


def test_the_seed_of_a_selection_and_the_student_that_selects_count(tmp_path):
    assert of("transfer_seed=1") == of(), "nothing is drawn"
    assert of("selection.rows=9", "transfer_seed=1") != of("selection.rows=9")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_text("weights")
    selected = ["selection.rows=9", "selection.by=disagreement", f"selection.path={tmp_path}"]
    before = of(*selected)
    (tmp_path / "model" / "README.md").write_text("a later command changes the card")
    (tmp_path / "evaluation.json").write_text("{}")
    assert of(*selected) == before
    (tmp_path / "model" / "model.safetensors").write_text("others")
    assert of(*selected) != before


def test_the_card_of_a_run_that_is_a_teacher_does_not_count(tmp_path):
    model = tmp_path / "run" / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (tmp_path / "run" / "status.json").write_text("{}")
    before = of(f"teacher.name_or_path={model}")
    (model / "README.md").write_text("kd audit wrote this")
    assert of(f"teacher.name_or_path={model}") == before
    (model / "config.json").write_text('{"a": 1}')
    assert of(f"teacher.name_or_path={model}") != before
