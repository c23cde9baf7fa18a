"""The checksums of the files of a finished run."""

import pytest

from kd.errors import KDError
from kd.storage import records
from kd.storage.checksum import file_sha256
from kd.storage.products import products, require_whole, require_whole_model


@pytest.fixture
def run(tmp_path):
    (tmp_path / "model" / "inner").mkdir(parents=True)
    for name in ("metrics.json", "model/config.json", "model/inner/x.json", "model/README.md", "model/.hidden.json"):
        (tmp_path / name).write_text(name)
    names = products(tmp_path, ["metrics.json", "model"])
    records.write(
        tmp_path / "status.json",
        {"format": 2, "state": "done", "products": {name: file_sha256(tmp_path / name) for name in names}},
    )
    return tmp_path


def expected(run):
    return records.read(run / "status.json", records.Status)["products"]


def test_files_that_are_read_back_are_products(run):
    assert list(expected(run)) == ["metrics.json", "model/config.json", "model/inner/x.json"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda run: (run / "model/config.json").unlink(), "model/config.json is missing"),
        (lambda run: (run / "model/config.json").write_text("x"), "model/config.json does not match its checksum"),
        (lambda run: (run / "model/a.txt").write_text("x"), "a.txt was not there when the run was done; remove this"),
    ],
)
def test_a_change_is_named(run, change, said):
    change(run)
    for check in (lambda: require_whole(run, expected(run), ["model"]), lambda: require_whole_model(run / "model")):
        with pytest.raises(KDError, match=said):
            check()
    require_whole(run, expected(run), ["metrics.json"])


def test_what_nobody_reads_may_come_and_go(run):
    for name in ("Thumbs.db", "README.md~", "model.safetensors.bak", "readme.md"):
        (run / "model" / name).write_text("x")
    (run / "model" / "README.md").unlink()
    require_whole(run, expected(run), ["model", "metrics.json"])
    require_whole_model(run / "model")


def test_a_folder_that_is_of_no_run_is_not_compared(tmp_path):
    (tmp_path / "model").mkdir()
    require_whole_model(tmp_path / "model")
    (tmp_path / "status.json").write_text('{"state": "done"}')
    (tmp_path / "model" / "x.json").write_text("{}")
    require_whole_model(tmp_path / "model")
