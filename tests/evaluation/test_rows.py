"""A labelled file, read by `kd evaluate`."""

import pytest

from kd.errors import KDError
from kd.evaluation.rows import of_file


def test_rows_with_a_text_and_a_label_are_read_and_others_are_listed(tmp_path, capsys):
    path = tmp_path / "gold.csv"
    path.write_text("text,label,source\na film,bad,x\n,good,x\na plot,,x\nwarm,1,y\nx\0y,bad,x\n\0,bad,x\n")
    found = of_file(path, "text", "label", ["bad", "good"], "utf-8", {"source": "--slice"})
    assert (found.texts, found.labels.tolist()) == (["a film", "warm"], [0, 1])
    assert found.columns == {"source": ["x", "y"]} and found.name == "gold.csv"
    assert "4 rows left out (no text, no label or malformed), lines 3, 4, 6, 7" in capsys.readouterr().err


def test_a_file_without_such_rows_is_refused(tmp_path):
    path = tmp_path / "gold.csv"
    path.write_text("text,label\n,bad\n")
    with pytest.raises(KDError, match="expected rows with a text and a label"):
        of_file(path, "text", "label", ["bad", "good"], "utf-8")
    with pytest.raises(KDError, match=r"has no column 'gold'; .* set --label to one of them"):
        of_file(path, "text", "gold", ["bad", "good"], "utf-8")
    with pytest.raises(KDError, match=r"has no column 'length'; .* set --slice to one of them"):
        of_file(path, "text", "label", ["bad", "good"], "utf-8", {"length": "--slice"})
