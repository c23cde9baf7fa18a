"""Knowledge distillation from BERT-like teachers into small text classifiers.

``import kd`` registers the students with transformers' Auto classes, so that
``transformers.pipeline("text-classification", model=RUN + "/model")`` finds them.
"""

import sys
from pathlib import Path

__version__ = "0.1.0"


def _started_as_command() -> bool:
    """True under ``kd ...`` and ``python -m kd ...``, where ``--help`` must not wait for torch."""
    return Path(sys.argv[0]).stem == "kd" or sys.orig_argv[1:3] in (["-m", "kd"], ["-m", "kd.assets"])


if not _started_as_command():
    from kd import models as models
