"""``kd serve RUN``: classify texts over HTTP. Needs torch only if the model does."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from kd.errors import KDError


def main(arguments: list[str]) -> int:
    """Serve the model that the arguments name, until SIGTERM or Ctrl-C."""
    try:
        from kd.serving.limits import Limits
        from kd.serving.server import listen, run
    except ModuleNotFoundError as error:
        if (error.name or "kd").startswith("kd"):
            raise
        raise KDError(f"kd serve needs the package {error.name}; pip install 'kd[serve]'") from error
    from kd import classifier
    from kd.options.declared import options_of

    parser = argparse.ArgumentParser(prog="kd serve", description="Classify texts over HTTP; docs/serving.md.")
    parser.add_argument("model", type=Path, metavar="RUN|EXPORT", help="run directory, export or Hugging Face folder")
    parser.add_argument("--host", default="127.0.0.1", help="address (default: 127.0.0.1: this machine only)")
    parser.add_argument("--port", type=int, default=8000, help="port; 0 takes a free one (default: 8000)")
    parser.add_argument("--log-texts", action="store_true", help="write the texts and their labels into the log")
    declared = options_of(Limits)
    for name, option in declared.items():
        default: Any = getattr(Limits, name)
        meaning = f"{option.meaning} (default: {default})"
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(default), default=default, metavar="N", help=meaning
        )
    options = parser.parse_args(arguments)
    limits = Limits(**{name: getattr(options, name) for name in declared})
    for name, option in declared.items():
        if not option.fits(value := getattr(limits, name)):
            raise KDError(f"--{name.replace('_', '-')}: expected {option.expected_for(value)}, got {value}")
    if limits.max_texts > limits.max_waiting:
        sizes = f"{limits.max_waiting} and {limits.max_texts}"
        raise KDError(f"expected --max-waiting to be at least --max-texts, got {sizes}; change one of them")
    with listen(options.host, options.port) as listener:  # before the model: a port in use is said at once
        loaded = classifier.load(options.model)
        host, port = listener.getsockname()[:2]
        place = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        print(f"kd serve: {place} has a page to try texts; Ctrl-C stops", file=sys.stderr, flush=True)
        run(loaded, listener, limits, options.log_texts)
    return 0
