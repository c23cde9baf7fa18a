"""The directory of a run: what is read of it, and what is never overwritten."""

import json

import pytest
import yaml

from kd.errors import KDError
from kd.run.directory import OBJECTIVES, RunDirectory
from kd.storage.files import write_json


def test_the_run_of_an_export_is_that_in_which_it_lies(tmp_path):
    (tmp_path / "run" / "exports" / "onnx").mkdir(parents=True)
    write_json(tmp_path / "run" / "status.json", {"state": "done"})
    for place in ("run", "run/exports/onnx"):
        assert RunDirectory.of_model(tmp_path / place, ()).path.resolve() == (tmp_path / "run").resolve()
    assert RunDirectory.of_model(tmp_path / "run" / "exports", ()) is None


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    return RunDirectory(tmp_path)


def test_a_run_configuration_is_plain_yaml(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(f"data: !!python/object/apply:os.mkdir [{tmp_path / 'marker'}]\n")
    with pytest.raises(KDError, match="found none that can be read"):
        RunDirectory(tmp_path).config()
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("content", ["[1, 2]", "seed: 0", "text"])
def test_another_yaml_is_no_configuration(run, content):
    run.config_file.write_text(content)
    with pytest.raises(KDError, match="found something else"):
        run.config()


def test_only_a_run_that_is_done_is_finished(run):
    with pytest.raises(KDError, match=r"found no status\.json in"):
        RunDirectory.finished(run.path)
    for state, said in (
        ("pruned", "was stopped by a search \\(behind\\)"),
        ("failed", "is failed \\(behind\\); repeat"),
    ):
        run.set_status(state, reason="behind")
        with pytest.raises(KDError, match=said):
            RunDirectory.finished(run.path)
    run.status_file.write_text("{}")
    with pytest.raises(KDError, match=r"is damaged: state: field required"):
        RunDirectory.finished(run.path)
    run.set_status("done", identity="abc")
    assert RunDirectory.finished(str(run.path)).status()["identity"] == "abc"


def test_a_run_is_done_as_long_as_its_products_are_there(run):
    run.set_status("done")
    assert not run.is_done
    run.model.mkdir()
    for product in (run.metrics_file, run.predictions_file, run.model / "model.safetensors"):
        product.touch()
    run.set_status("done")
    assert run.is_done
    run.metrics_file.write_text("{}")
    assert not run.is_done
    run.set_status("running")
    assert not run.is_done


def test_a_search_compares_figures_by_name(run):
    figures = {
        "validation": {"accuracy": 0.8, "macro_f1": 0.7, "balanced_accuracy": 0.6, "auroc": 0.9},
        "latency": {"p50_ms": 2, "threads": 1},
        "model_bytes": 9,
    }
    run.metrics_file.write_text(json.dumps(figures | {"parameters": {"total": 5, "without_embeddings": 4}}))
    assert run.objective("accuracy") == 0.8
    assert run.objective(list(OBJECTIVES)) == [0.8, 0.7, 0.6, 0.9, 2, 5, 9]
    run.metrics_file.write_text(json.dumps(figures | {"validation": {"accuracy": 0.8}}))
    with pytest.raises(KDError, match=r"lacks validation\.auroc, which an early kd did not measure"):
        run.objective("auroc")


def test_products_are_set_aside_again_and_again(run):
    assert run.set_aside_products() is None
    for number in ("1", "2"):
        run.config_file.write_text(yaml.safe_dump({"data": {"text": number}}))
        (run.path / "metrics.before-3.csv").touch()
        (run.path / "exports" / "onnx").mkdir(parents=True)  # the model of the next training is another
        run.set_status("failed")
        place = run.set_aside_products()
        assert place == run.path / "previous" / number
        assert {path.name for path in place.iterdir()} == {"config.yaml", "metrics.before-3.csv", "exports"}
        assert RunDirectory(place).config() == {"data": {"text": number}}
    assert run.status()["state"] == "failed", "the status stays"


def test_reads_of_the_test_rows_are_counted(run):
    assert run.test_reads() == 0
    run.predictions_file.touch()
    run.record_test_read(command="kd evaluate")
    assert run.test_reads() == 2
    run.set_aside_products()
    run.predictions_file.touch()
    assert run.test_reads() == 3
