"""Transfer sets in whole runs: made once, part of the run, refused in one sentence."""

import json
from pathlib import Path

import pandas
import pytest

from kd.run.directory import RunDirectory
from tests.conftest import BAD, GOOD, run_kd

STEPS = ["transfer=[documents,halves]", "transfer.documents.path=corpus.txt", "transfer.halves.rounds=1"]


@pytest.fixture
def corpus(options):
    sentences = [f"The {word} actors, and a very {other} scene." for word in GOOD for other in BAD]
    Path("corpus.txt").write_text("\n".join(sentences))
    return options


def rows_of(run):
    return RunDirectory.finished(Path(run)).environment()["data"]


def test_a_run_reads_the_texts_that_its_steps_make(corpus, capsys):
    command = ["train", *corpus, *STEPS, "student=dan"]
    assert run_kd(*command, "hydra.run.dir=run") == 0
    said = capsys.readouterr().out
    assert "transfer set: " in said and "documents 36 of 36" in said and "halves " in said
    made = rows_of("run")["counts"]["transfer_set"]
    unlabelled = rows_of("run")["counts"]["splits"]["train"]["unlabelled"]
    assert made["rows"] == unlabelled == made["steps"]["documents"]["used"] + made["steps"]["halves"]["used"]
    shards = sorted(Path(made["folder"]).glob("*.parquet"))
    texts = pandas.concat(map(pandas.read_parquet, shards))
    assert "the wonderful actors, and a very dull scene." in set(texts["text"]), "lower-cased as the rows are"
    # Another seed has the same set, and so do the stream, kd evaluate and kd reproduce.
    assert run_kd(*command, "seed=1", "hydra.run.dir=other") == 0
    assert "made before" in capsys.readouterr().out
    assert rows_of("other")["train"] == rows_of("run")["train"]
    assert run_kd("evaluate", "run", "--split", "test") == 0
    assert run_kd("reproduce", "run") == 0
    assert "reproduced to the last bit" in capsys.readouterr().out
    assert run_kd(*command, "hydra.run.dir=run") == 0
    assert "already done" in capsys.readouterr().out
    assert run_kd(*command, "data.stream=true", "hydra.run.dir=stream") == 0
    assert rows_of("stream")["transfer"]["rows"] == made["rows"]


def test_a_set_can_be_made_before_and_looked_at(corpus, caplog):
    with caplog.at_level("INFO"):
        assert run_kd("cache", "build", *corpus, *STEPS, "student=dan", "transfer_rows=20") == 0
    assert "transfer set: 20 texts" in caplog.text
    [manifest] = Path("outputs/transfer_sets").glob("*/manifest.json")
    assert json.loads(manifest.read_text())["rows"] == 20


@pytest.mark.slow
def test_a_sweep_over_sizes_shares_the_parts(corpus):
    assert run_kd("train", "-m", *corpus, *STEPS, "student=dan", "transfer_rows=0,10,30", "hydra.sweep.dir=sweep") == 0
    runs = [RunDirectory(path.parent) for path in Path("sweep").rglob("environment.json")]
    sizes = [run.environment()["data"]["counts"]["splits"]["train"]["unlabelled"] for run in runs]
    assert sorted(set(sizes)) == [0, 10, 30]
    assert len(list(Path("outputs/transfer_sets/steps").iterdir())) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["transfer=[nothing]"], "nothing"),
        ([*STEPS, "transfer.documents.most=0"], "transfer.documents.most: expected a whole number of at least 1"),
        ([*STEPS, "transfer.documents.path=none.txt"], "none.txt"),
        ([*STEPS, "transfer.halves.rows=3"], "transfer.halves.rows: there is no such option"),
        (["transfer=[documents]"], "transfer.documents.path"),
        (["+transfer.mine=5"], "transfer.mine: expected a node, as transfer=[rules] adds one, got 5"),
        (
            ["transfer=[rules]", "transfer.rules.path=null", "transfer.rules.mask_token='<mask>'"],
            "transfer.rules.mask_token: expected the mask token of the teacher, '[MASK]', got '<mask>'",
        ),
        ([*STEPS, "transfer_rows=-1"], "transfer_rows: expected a whole number of at least 0 or null"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_mistakes_are_one_sentence(corpus, capsys, words, said):
    assert run_kd("train", *corpus, *words) == 2
    printed = capsys.readouterr().err
    assert said in printed and "Traceback" not in printed and printed.count("\n") == 1, printed
    assert not Path("outputs/transfer_sets").exists() or not list(Path("outputs/transfer_sets").glob("*/manifest.json"))


def test_a_step_of_the_users_own(corpus, tmp_path, monkeypatch):
    (tmp_path / "mylib.py").write_text(
        "from kd.transfer.base import Step\n"
        "class Reversed(Step):\n"
        "    def parts(self, train, seed):\n"
        "        yield (' '.join(reversed(text.split())) for text in train.texts)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    words = ["modules=[mylib]", "+transfer.mine._target_=mylib.Reversed", "+transfer.mine.most=7"]
    assert run_kd("train", *corpus, *words, "student=dan", "hydra.run.dir=run") == 0
    assert rows_of("run")["counts"]["splits"]["train"]["unlabelled"] == 7
