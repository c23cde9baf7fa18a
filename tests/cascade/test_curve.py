"""What a cascade costs and gives at each threshold, and how it is shown."""

import io
import time

import numpy as np
from rich.console import Console

from kd.cascade.curve import figure, figures, milliseconds, table
from kd.cascade.threshold import NOBODY, Outcomes
from kd.report.drawing import drawn

OUTCOMES = Outcomes(
    np.array([[0.9, 0.9, 0.6, 0.6], [0.5, 0.5, 0.9, 0.5]]),
    np.array([[0, 1, 1, 1], [0, 0, 1, 0], [0, 0, 1, 0]]),
    np.array([0, 0, 0, -100]),
    2,
)


def test_a_text_costs_the_time_of_all_that_read_it():
    found = figures(OUTCOMES, 0.8, [1.0, 2.0, 10.0])
    assert found["milliseconds"] == (1 + 1 + 3 + 13) / 4
    assert (found["answered"], found["differing"]) == ([2, 1, 1], 1)
    assert (found["accuracy"], found["teacher_accuracy"]) == (1 / 3, 2 / 3), "of the rows with a label"
    alone = figures(OUTCOMES, NOBODY, [1.0, 2.0, 10.0])
    assert alone["milliseconds"] == 10 and alone["differing"] == 0, "students that never answer are not asked"
    unlabelled = Outcomes(OUTCOMES.confidences, OUTCOMES.answers, np.full(4, -100), 2)
    assert figures(unlabelled, 0.8, [1.0, 2.0, 10.0])["accuracy"] is None


def test_the_table_has_the_chosen_row_and_both_ends():
    console = Console(width=120, file=io.StringIO())
    console.print(table(OUTCOMES, 0.8, [1.0, 2.0, 10.0], ["student 1", "student 2", "teacher"], "title"))
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    assert ["0.8000", "50.0", "25.0", "25.0", "75.0", "33.3", "4.50", "0.45", "1.25", "chosen"] in lines
    assert lines[3][:4] == ["–", "0.0", "0.0", "100.0"] and lines[-1][3] == "0.0"


def test_the_drawing_has_a_line_for_each_figure():
    made = figure(OUTCOMES, 0.8, [1.0, 2.0, 10.0], 0.98, "some rows")
    assert drawn(made)[0].startswith(b"\x89PNG")
    share, agreement, _, spent = made.rows[-1]
    assert (share, agreement, spent) == (100, 50, 10), "the first student alone"


def test_each_classifier_is_timed():
    class Slow:
        def __init__(self, seconds):
            self.seconds = seconds

        def logits(self, texts, batch_size=64):
            time.sleep(self.seconds)

    fast, slow = milliseconds([Slow(0.001), Slow(0.01)], ["a"] * 5)
    assert fast >= 1 and slow >= 10 > fast
