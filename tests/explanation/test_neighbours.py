"""The nearest training rows of the tiny student."""

import json

import numpy as np
import pytest
import yaml

from kd.classifier import load
from kd.errors import KDError
from kd.explanation.attribution import Model
from kd.explanation.neighbours import nearest, training_rows, vectors
from kd.run.directory import RunDirectory
from tests.explanation.additive import Additive

NAMES = ["negative", "positive"]


def test_the_same_words_in_another_order_are_nearest_to_a_model_without_order(trained_pair):
    model = Model("student", load(trained_pair / "dan"), NAMES, batch_size=7)
    rows = training_rows(RunDirectory(trained_pair / "dan"))
    texts = [rows[place]["text"] for place in (3, 40)]
    turned = [" ".join(reversed(text.split())) for text in texts]
    found = nearest(model, turned, rows, 2)
    assert [near[0]["text"] for near in found] == texts
    assert all(abs(near[0]["closeness"] - 1) < 1e-5 and near[1]["closeness"] <= near[0]["closeness"] for near in found)
    assert [near[0]["label"] for near in found] == [NAMES[rows[place]["label"]] for place in (3, 40)]
    assert texts[0] not in [near["text"] for near in nearest(model, texts[:1], rows, 3)[0]], "not the text itself"
    assert np.allclose(vectors(model, texts), vectors(model, turned), atol=1e-5)
    with pytest.raises(KDError, match="--neighbours: expected fewer than the"):
        nearest(model, texts, rows, len(rows))


def test_a_model_without_inner_states_is_searched_by_its_logits(trained_pair):
    rows = training_rows(RunDirectory(trained_pair / "dan"))
    model = Model("student", Additive({"wonderful": 3.0}), NAMES)
    (near,) = nearest(model, ["wonderful wonderful"], rows, 4)
    assert near[0]["closeness"] == -3.0 and "wonderful" in near[0]["text"]


@pytest.mark.parametrize("made", [False, True])
def test_texts_of_the_transfer_set_have_no_gold_label(pair, tmp_path, made, caplog):
    run, folder = pair / "dan", tmp_path / "made"
    folder.mkdir()
    if made:  # as a run with steps of `transfer` has it
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.table({"text": ["plot wonderful brilliant"]}), folder / "part-00000.parquet")
        place = run / "environment.json"
        content = json.loads(place.read_text())
        content["data"]["counts"]["transfer_set"] = {"folder": str(folder)}
        place.write_text(json.dumps(content))
    else:
        (folder / "more.txt").write_text("plot wonderful brilliant\n")
        config = yaml.safe_load((run / "config.yaml").read_text())
        config["data"]["unlabelled"] = str(folder / "more.txt")
        (run / "config.yaml").write_text(yaml.safe_dump(config))
    model = Model("student", load(run / "model"), NAMES)
    (near,) = nearest(model, ["brilliant wonderful plot"], training_rows(RunDirectory(run)), 1)
    assert (near[0]["text"], near[0]["label"]) == ("plot wonderful brilliant", None)
    if made:
        (folder / "part-00000.parquet").unlink()
        training_rows(RunDirectory(run))
        assert "the transfer set is not in" in caplog.text
