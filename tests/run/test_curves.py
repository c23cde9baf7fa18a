"""The curves of a run that was interrupted."""

import pandas

from kd.run.curves import join_curves


def test_curves_that_a_kill_cut_off_do_not_stop_a_run(tmp_path):
    """The logger empties its file before it writes it: a kill may come in between."""
    rows, curves = "epoch,step,val/accuracy\n", tmp_path / "metrics.csv"
    parts = [tmp_path / f"metrics.before-{number}.csv" for number in range(4)]
    for part, text in zip(parts, (f"{rows}0,4,0.5\n1,9,0.6\n", "", f"{rows}1,9,0.7\n", rows), strict=True):
        part.write_text(text)
    curves.write_text(f"{rows}2,14,0.8\n")
    join_curves(curves, parts)
    assert pandas.read_csv(curves)["val/accuracy"].tolist() == [0.5, 0.7, 0.8]
    assert list(tmp_path.iterdir()) == [curves]
    parts[0].touch()
    curves.unlink()
    join_curves(curves, parts[:1])
    assert not list(tmp_path.iterdir())
