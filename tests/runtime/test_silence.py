"""Messages about things that are as they should be are silenced, and no others."""

import logging
import warnings

import transformers

from kd.runtime.silence import quiet


def test_expected_warnings_are_silenced_and_others_are_not():
    verbosity = transformers.logging.get_verbosity()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quiet()
        warnings.warn("The train_dataloader does not have many workers which may be a bottleneck.", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert [str(one.message) for one in caught] == ["something else"]
    assert logging.getLogger("lightning.pytorch.utilities.rank_zero").level == logging.WARNING
    assert transformers.logging.get_verbosity() == transformers.logging.ERROR
    transformers.logging.set_verbosity(verbosity)
