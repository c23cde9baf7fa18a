"""A handful of training rows, and splits that hold them."""

import pytest

from kd.data.labels import LabelReader
from kd.data.splits import SplitBuilder, Splits
from kd.transfer.base import LabelledTexts
from tests.conftest import make_reviews


@pytest.fixture(scope="session")
def train() -> LabelledTexts:
    texts, labels = zip(*make_reviews(120), strict=True)
    return LabelledTexts(list(texts), list(labels), "checksum")


@pytest.fixture(scope="session")
def splits() -> Splits:
    builder = SplitBuilder(LabelReader(["negative", "positive"]), 0.2, 0.2)
    names = ("negative", "positive")
    builder.add("train", "reviews.csv", [(n, text, names[label]) for n, (text, label) in enumerate(make_reviews(120))])
    return builder.finish()
