"""The progress bar leaves room for the metrics."""

from rich.progress import BarColumn

from kd.runtime.progress_bar import ProgressBar
from tests.conftest import bare_trainer


def test_the_bar_is_short():
    columns = ProgressBar().configure_columns(bare_trainer())
    assert [column.bar_width for column in columns if isinstance(column, BarColumn)] == [10]
