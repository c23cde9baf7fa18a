"""Exports classify, also where neither torch nor kd's other packages are installed."""

import shutil
import subprocess
import sys
import venv
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement

import kd
from kd.errors import KDError
from kd.export import classifier
from tests.export.conftest import TEXTS


def test_probabilities_are_those_of_the_model(bilstm, exported):
    found = classifier.load(exported / "onnx")
    np.testing.assert_allclose(found.probabilities(TEXTS, 3), bilstm.probabilities(TEXTS), atol=1e-6)
    assert found.label_names == bilstm.label_names and found.max_length == 32 and found.text_column == "text"
    assert found.logits([]).shape == (0, 2) and found.probabilities([]).shape == (0, 2)


def test_a_model_that_is_no_onnx_is_one_sentence(exported, tmp_path):
    place = shutil.copytree(exported / "onnx", tmp_path / "copy")
    (place / "model.onnx").write_bytes(b"no model")
    about = classifier.folder.read(exported / "onnx")
    with pytest.raises(KDError, match=r"cannot use the export in .*; update the libraries, or export it again"):
        classifier.OnnxClassifier(place, about)


def installed(names: list[str]) -> set[str]:
    """The distributions that these need, themselves included."""
    todo, found = list(names), set()
    while todo:
        name = todo.pop()
        try:
            needed = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        if name not in found:
            found.add(name)
            wanted = [Requirement(each) for each in needed]
            todo += [each.name for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory) -> Path:
    """Python with onnxruntime, tokenizers, numpy, what these need, and kd without its dependencies."""
    place = tmp_path_factory.mktemp("bare") / "venv"
    venv.create(place)
    site = next(place.glob("lib/python*/site-packages"))
    for name in installed(["onnxruntime", "tokenizers", "numpy"]):
        tops = {file.parts[0] for file in distribution(name).files or [] if file.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            if not (site / top).exists():
                (site / top).symlink_to(distribution(name).locate_file(top))
    (site / "kd").symlink_to(Path(kd.__file__).parent)
    return place / "bin" / "python"


def test_kd_predict_needs_no_torch(exported, bare_python, tmp_path):
    (tmp_path / "texts.csv").write_text("text\nthe film is awful\na charming plot\n")
    script = "import importlib.util as u; assert not any(map(u.find_spec, ['torch', 'pyarrow', 'rich', 'pydantic']))"
    assert subprocess.run([bare_python, "-c", script]).returncode == 0
    command = [bare_python, "-m", "kd", "predict", exported / "int8", "--file", tmp_path / "texts.csv"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "text,prediction,probability_bad,probability_good" and len(lines) == 3
    done = subprocess.run([bare_python, "-m", "kd", "predict", exported, "a"], capture_output=True, text=True)
    assert done.returncode == 2 and "is no export, and other models need" in done.stderr
    place = str(exported / "onnx")
    script = f"from pathlib import Path; from kd.classifier import load; print(load(Path({place!r})).label_names)"
    done = subprocess.run([bare_python, "-c", script], capture_output=True, text=True)
    assert done.stdout == "['bad', 'good']\n", done.stderr


def test_reading_an_export_loads_no_torch(exported):
    lines = [
        "import sys; sys.argv[0] = 'kd'",
        "from pathlib import Path; from kd.export import classifier",
        f"classifier.load(Path({str(exported / 'int8')!r})).logits(['a'])",
        "assert 'torch' not in sys.modules",
    ]
    done = subprocess.run([sys.executable, "-c", "; ".join(lines)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
