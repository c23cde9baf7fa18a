"""What the tests of the report share."""

import pytest

from tests.report.written import Runs


@pytest.fixture
def runs(tmp_path) -> Runs:
    return Runs(tmp_path / "runs")


@pytest.fixture(scope="module")
def said(reviews_file, teacher_folder) -> list[str]:
    """What every run has in common."""
    return [
        *("data=files", f"data.path={reviews_file}", "data.label_names=[negative,positive]", "data.max_length=24"),
        *("data.batch_size=16", "data.validation_share=0.2", "data.test_share=0.3", "student=dan"),
        *("teacher=hf", f"teacher.name_or_path={teacher_folder}", "teacher.epochs=4", "teacher.batch_size=8"),
        *("teacher.learning_rate=3e-3", "student.embedding_size=16", "trainer=cpu", "trainer.max_epochs=2"),
        *("trainer.deterministic=true", "callbacks=[checkpoint]", "threads=1"),
    ]
