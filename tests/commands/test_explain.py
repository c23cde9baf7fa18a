"""`kd explain` from end to end on a tiny student and its teacher."""

import shutil

import pytest

from kd.commands.explain import bar
from kd.run.directory import RunDirectory
from kd.storage import explanation_record
from tests.conftest import run_kd


def test_texts_and_a_data_set_beside_the_teacher_and_another_run(pair, capsys):
    run = pair / "dan"
    more = ("--on", "validation", "--rows", "12", "--steps", "8", "--against", pair / "mlp")
    assert run_kd("explain", run, "the film is <b> wonderful", "--neighbours", "2", *more) == 0
    out = capsys.readouterr().out
    assert "Completeness: the influences add up to" in out and "by integrated gradients:" in out
    assert "student – teacher" in out and "student minus other" in out and "wonderful" in out
    found = explanation_record.read(run)
    text, data = found["texts"]["rows"][0], found["data"]
    assert data["names"] == ["student", "teacher", "other"] and data["method"] == "ig" and len(data["pairs"]) == 3
    assert data["source"] == "validation" and data["rows"] + data["left_out"] == 12 and data["gain"]
    assert all(near["teacher"] and near["label"] for near in text["neighbours"]) and len(text["neighbours"]) == 2
    assert (run / "explanation/index.html").is_file() and RunDirectory(run).test_reads() == 1

    assert run_kd("explain", run, "a dull plot", "--method", "occlusion") == 0
    again = explanation_record.read(run)
    assert again["data"] == data and again["texts"]["rows"][0]["words"] == ["a", "dull", "plot"]
    assert again["texts"]["method"] == "occlusion" and again["texts"]["names"] == ["student", "teacher"]
    (run / explanation_record.NAME).write_text("{}")
    assert run_kd("explain", run, "a dull plot", "--method", "occlusion") == 0
    assert explanation_record.read(run)["data"] is None, "a damaged file is replaced"


def test_a_student_whose_teacher_is_gone_is_explained_alone(pair, tmp_path, capsys):
    run = pair / "dan"
    shutil.copytree(RunDirectory(run).model, tmp_path / "model")
    arguments = ("a wonderful film", "--method", "gradient", "--out", tmp_path / "page")
    assert run_kd("explain", tmp_path / "model", *arguments) == 0
    found = explanation_record.read(tmp_path / "page")["texts"]
    assert found["names"] == ["student"] and found["method"] == "gradient"
    assert run_kd("explain", tmp_path / "model", *arguments) == 0, "a second time into the same folder"
    assert "by gradient times input" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "expected texts, or --on FILE or --on validation, got neither"),
        (["  "], "expected a text with words, got '  '"),
        (["a film", "--rows", "1", "--on", "validation"], "--rows: expected at least 2, got 1"),
        (["a film", "--steps", "0"], "--steps: expected at least 1, got 0"),
        (["a film", "--teacher", "nowhere"], "nowhere"),
        (["--on", "nowhere.csv"], "nowhere.csv"),
        (["a film", "--neighbours", "4000"], "--neighbours: expected fewer than the"),
    ],
)
def test_mistakes_end_with_a_sentence(pair, arguments, sentence, capsys):
    assert run_kd("explain", pair / "dan", *arguments) == 2
    assert sentence in capsys.readouterr().err
    assert not (pair / "dan" / explanation_record.NAME).exists()


def test_unfinished_and_strange_models(pair, teacher_folder, capsys):
    assert run_kd("explain", pair / "dan", "a film", "--against", teacher_folder) == 2
    assert "expected the labels negative, positive in the other" in capsys.readouterr().err
    assert run_kd("explain", teacher_folder, "--on", "validation") == 2
    assert "--on validation: expected a run" in capsys.readouterr().err
    assert run_kd("explain", teacher_folder, "a film", "--neighbours", "1") == 2
    assert "its training rows are not known" in capsys.readouterr().err
    assert run_kd("explain", teacher_folder, "a film", "--out", pair) == 2
    assert "expected an empty folder or an earlier report" in capsys.readouterr().err
    RunDirectory(pair / "mlp").set_status("running")
    assert run_kd("explain", pair / "mlp", "a film") == 2
    assert "is running" in capsys.readouterr().err


def test_out_is_written_in_place_of_the_run_and_an_export_has_its_teacher(pair, tmp_path, capsys):
    run, out = pair / "dan", tmp_path / "out"
    export = shutil.copytree(run / "model", run / "exports" / "copy")
    assert run_kd("explain", run, "a dull dull film", "--method", "occlusion", "--out", out) == 0
    assert not (run / explanation_record.NAME).exists() and (out / "index.html").is_file()
    assert explanation_record.read(out)["texts"]["names"] == ["student", "teacher"]
    assert run_kd("explain", export, "a dull film", "--method", "occlusion", "--out", out) == 0
    assert explanation_record.read(out)["texts"]["names"] == ["student", "teacher"]
    capsys.readouterr()
    assert run_kd("explain", run, "--on", "validation", "--rows", "9", "--method", "occlusion") == 0
    assert "-0.00" not in capsys.readouterr().out
    assert "rank correlation of the words with the teacher" in (run / "model" / "README.md").read_text()


def test_a_bar_of_nothing_has_no_sign_of_its_own():
    assert [bar(value, 1.0)[0].plain for value in (-0.001, 0.0, -0.1)] == ["+0.00", "+0.00", "-0.10"]
