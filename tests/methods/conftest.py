"""The tiny teachers of hints and compositions."""

import pytest

from kd.features import attention as recording
from tests.features.test_matching import make_bert


@pytest.fixture(scope="module")
def teacher():
    model = make_bert()
    recording.prepare(model)
    return model


@pytest.fixture(scope="module")
def other_teacher():
    return make_bert(width=24, layers=2, seed=7)
