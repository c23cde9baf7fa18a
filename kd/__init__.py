"""Knowledge distillation from BERT-like teachers into small text classifiers.

``import kd`` registers the students with transformers' Auto classes, so that
``transformers.pipeline("text-classification", model=RUN + "/model")`` finds them.
"""

import sys
from pathlib import Path

__version__ = "0.1.0"


def _started_as_command() -> bool:
    """Return whether this is ``kd ...`` or ``python -m kd ...``, where ``--help`` must not wait for torch."""
    if sys.argv[0] != "-m":  # as it is while Python looks for what -m names, whatever stands before: torchrun says -u
        return Path(sys.argv[0]).stem == "kd"
    named = sys.orig_argv[sys.orig_argv.index("-m") + 1 :] if "-m" in sys.orig_argv else []
    return named[:1] in (["kd"], ["kd.storage.assets"])


if not _started_as_command():
    from kd import models as models
