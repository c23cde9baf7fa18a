"""``kd data inspect`` prints what a run would read."""

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hypothesis import given, settings
from hypothesis import strategies as st

from kd.commands.data import as_override, main, parser, words_of
from kd.config.compose import composed
from kd.config.folder import overrides
from kd.data.sources import from_files
from tests.conftest import run_kd
from tests.data.writing import raw, reviews, write


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "train.csv", [*reviews(40), {"text": "REVIEW number 100 of 10", "label": 1}, reviews(40)[0]])
    write(tmp_path / "test.csv", reviews(10, first=100))
    write(tmp_path / "old.csv", reviews(3))
    with (tmp_path / "train.csv").open("a") as stream:
        stream.write("a,b,c\ntext,label\n")
    return tmp_path


def test_what_is_found_is_printed_in_80_columns(folder, capsys, teacher_folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert main(["inspect", ".", "--tokenizer", str(teacher_folder), "--png", "a.png"]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    for words in (
        "train: train.csv (csv, delimiter ',' (comma), quotes doubled, utf-8)",
        "columns: 'text', 'label'",
        "labels are read as the values found, sorted as numbers",
        "rows: 54 read, 50 used",
        "left out, malformed: 1 (train.csv:44)",
        "left out, repeated header: 1 (train.csv:45)",
        "left out, duplicates: 1 (train.csv:43)",
        "left out, removed from train, as validation or test has the text (a leak): 1",
        "words in a text: least 5",
        "pieces in a text:",
        "unknown pieces:",
        "warning: not used: old.csv",
        "  '0': review number ",
        "to train on it:\n  kd train data=files data.path=.\n",
    ):
        assert words in printed
    assert (folder / "a.png").read_bytes().startswith(b"\x89PNG")
    counts = from_files(str(folder)).counts
    for label, row in (("0", 0), ("1", 1)):
        numbers = [str(counts["splits"][name]["labels"][label]) for name in ("train", "validation", "test")]
        line = next(line for line in printed.splitlines() if line.startswith(f"{label} "))
        assert line.split()[1:4] == numbers, row


def test_options_of_the_data_are_those_of_a_run(tmp_path, capsys):
    path = raw(tmp_path / "评论 (1).data", "".join(f"{i % 2}#film {i}\n" for i in range(80)))
    common = [str(path), "--delimiter", "#", "--header", "stars", "review"]
    assert main(["inspect", *common, "--text", "review", "--label", "stars", "data.limit=50"]) == 0
    assert "rows: 80 read, 50 used" in capsys.readouterr().out
    assert run_kd("data", "inspect", *common) == 2
    caught = capsys.readouterr()
    assert "columns: 'stars', 'review'" in caught.out  # what is there is printed first
    assert caught.err.startswith("kd data: ") and "has no column 'text'; it has 'stars', 'review'" in caught.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a file or folder to inspect"),
        (["none.csv"], "there is no file none.csv"),
        (["a.csv", "data.txt=3"], "data.txt"),
        (["a.csv", "--quoting", "odd"], "data.quoting: expected doubled, backslash, single or none or null"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.csv", reviews(9))
    assert run_kd("data", "inspect", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_many_files_and_classes_are_cut_short(tmp_path, capsys):
    for number in range(9):
        rows = [{"text": f"row {i} of {number}", "label": f"class {i % 40}"} for i in range(80)]
        write(tmp_path / f"train-{number}.jsonl", rows)
    assert main(["inspect", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "and 3 files more" in printed and "and 10 classes more" in printed
    assert printed.count("columns:") == 1


def test_short_texts_and_an_unusual_file_are_said_once(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "text;stars here\n" + "".join(
        f"word{i} of {['films', 'x' * 80][i % 2]};{['bad', 'good'][i % 2]}\n" for i in range(90)
    )
    path = raw(tmp_path / "my film's (1).csv", text)
    header = ["--header", "text", "stars here"]
    arguments = [path.name, "--label", "stars here", "data.limit=50", *header, "--test", path.name]
    assert main(["inspect", *arguments[:3]]) == 0
    printed = capsys.readouterr().out
    assert printed.count("semicolon") == 1 and " to 0" not in printed and "\n3         90  " in printed
    assert "  'bad': word" in printed and "...\n" in printed and max(map(len, printed.splitlines())) <= 80
    words = words_of(parser().parse_intermixed_args(["inspect", *arguments]))
    data = composed(words).data
    assert (data.path, data.test, data.label, list(data.header)) == (
        *2 * [path.name],
        "stars here",
        ["text", "stars here"],
    )
    assert data.limit == 50 and shlex.split(" ".join(map(shlex.quote, words))) == words


@settings(deadline=None, max_examples=60)
@given(
    st.text(min_size=1).map(lambda text: text.replace("\0", "").strip()).filter(bool)
    | st.sampled_from(["1", "No", "a(b)"])
)
def test_every_value_of_the_printed_command_is_read_as_it_is(value):
    word = overrides([f"data.path={as_override(value)}"])[0]
    assert str(OverridesParser.create().parse_override(word).value()) == value
    assert isinstance(OverridesParser.create().parse_override(word).value(), str | QuotedString)
    several = overrides([f"data.header={as_override([value, 'a'])}"])[0]
    assert list(map(str, OverridesParser.create().parse_override(several).value())) == [value, "a"]
