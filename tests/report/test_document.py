"""The parts of the report and their order."""

from kd.report.document import document
from kd.report.runs import find_runs
from kd.report.study import studies
from tests.report.written import Runs


def test_the_parts_in_order(runs):
    runs.grid(seeds=(0,))
    Runs(runs.folder / "others").write("a", "distillation", data="other rows", of_choices={"data": "sst2"})
    found = find_runs([runs.folder])
    made = document([runs.folder], found, studies(found.runs))
    assert made.title == "2 test sets: dan on reviews and dan on sst2" and len(made.warnings) == 1
    first, second = made.sections
    assert (first.prefix, second.prefix) == ("1-", "2-") and first.title == "dan on reviews"
    assert [block.title for block in first.blocks] == [
        *("Results", "Gain of the teacher over supervised training", "Choice by validation", "Size, speed and cost"),
        *("Agreement with the teacher", "Calibration"),
    ]
    assert [figure.name for block in first.blocks for figure in block.figures] == [
        *("gain", "heat-map-1", "curves", "accuracy-latency", "accuracy-parameters", "accuracy-bytes"),
        *("fidelity", "reliability", "reliability-after"),
    ]
    closing = ["How often the test rows were read", "Missing baselines", "Reproducibility"]
    assert [block.title for block in made.closing] == closing
