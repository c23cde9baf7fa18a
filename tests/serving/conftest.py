"""One classifier for all tests of the server: the tiny random BERT, read by torch."""

import threading
from pathlib import Path

import numpy as np
import pytest

from kd import classifier


class Held:
    """A classifier that reads nothing until it may, so that a test can fill the queue."""

    def __init__(self, classifier: classifier.Classifier) -> None:
        self.classifier, self.may, self.sizes = classifier, threading.Event(), []
        self.label_names, self.max_length = classifier.label_names, classifier.max_length

    def probabilities(self, texts: list[str], batch_size: int = 64) -> np.ndarray:
        assert self.may.wait(20)
        self.sizes.append(len(texts))
        return self.classifier.probabilities(texts, batch_size)


@pytest.fixture(scope="session")
def loaded(teacher_folder: Path) -> classifier.Classifier:
    return classifier.load(teacher_folder)


@pytest.fixture
def held(loaded) -> Held:
    return Held(loaded)
