"""A labelled file, read by `kd evaluate`."""

import pytest

from kd.commands.evaluate import labelled_file, main
from kd.errors import KDError


def test_rows_with_a_text_and_a_label_are_read_and_others_are_listed(tmp_path, capsys):
    path = tmp_path / "gold.csv"
    path.write_text("text,label\na film,bad\n,good\na plot,\nwarm,1\nx\0y,bad\n\0,bad\n")
    texts, labels = labelled_file(path, "text", "label", ["bad", "good"], "utf-8")
    assert (texts, labels.tolist()) == (["a film", "warm"], [0, 1])
    assert "4 rows left out (no text, no label or malformed), lines 3, 4, 6, 7" in capsys.readouterr().err


def test_a_file_without_such_rows_is_refused(tmp_path):
    path = tmp_path / "gold.csv"
    path.write_text("text,label\n,bad\n")
    with pytest.raises(KDError, match="expected rows with a text and a label"):
        labelled_file(path, "text", "label", ["bad", "good"], "utf-8")
    with pytest.raises(KDError, match=r"has no column 'gold'; .* set --label to one of them"):
        labelled_file(path, "text", "gold", ["bad", "good"], "utf-8")


def test_arguments_that_do_not_fit():
    with pytest.raises(KDError, match="--batch-size: expected at least 1, got 0"):
        main(["run", "--batch-size", "0"])
