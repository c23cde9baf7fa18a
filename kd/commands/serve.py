"""``kd serve RUN``: classify texts over HTTP. Needs torch only if the model does."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kd.errors import KDError

if TYPE_CHECKING:
    from kd.classifier import Classifier
    from kd.serving.auditing import Auditor
    from kd.serving.limits import Limits


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

    options, limits = parsed(arguments, Limits)
    with listen(options.host, options.port) as listener:  # before the model: a port in use is an error at the start
        loaded, auditor = cascade(options) if options.cascade else (classifier.load(options.model), None)
        host, port = listener.getsockname()[:2]
        place = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        print(f"kd serve: {place} has a page to try texts; Ctrl-C stops", file=sys.stderr, flush=True)
        run(loaded, listener, limits, options.log_texts, auditor)
    return 0


def parsed(arguments: list[str], kind: type[Limits]) -> tuple[argparse.Namespace, Limits]:
    """Return the options of the command line, and those of them that are limits."""
    from kd.options.declared import options_of

    parser = argparse.ArgumentParser(prog="kd serve", description="Classify texts over HTTP; docs/serving.md.")
    parser.add_argument("model", type=Path, metavar="RUN|EXPORT", help="run directory, export or Hugging Face folder")
    parser.add_argument("--host", default="127.0.0.1", help="address (default: 127.0.0.1: this machine only)")
    parser.add_argument("--port", type=int, default=8000, help="port; 0 takes a free one (default: 8000)")
    parser.add_argument("--log-texts", action="store_true", help="write the texts and their labels into the log")
    parser.add_argument("--cascade", action="store_true", help="ask the teacher where kd cascade says so")
    parser.add_argument(
        "--fallback", choices=["student"], help="answers where the teacher of the cascade cannot (default: 503)"
    )
    parser.add_argument(
        "--audit", type=float, metavar="SHARE", help="share of texts about which the teacher is asked afterwards"
    )
    parser.add_argument(
        "--audit-texts", type=Path, metavar="FILE", help="JSONL for the texts with another answer (default: none kept)"
    )
    declared = options_of(kind)
    for name, option in declared.items():
        default: Any = getattr(kind, name)
        meaning = f"{option.meaning} (default: {default})"
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(default), default=default, metavar="N", help=meaning
        )
    options = parser.parse_args(arguments)
    for name, needs in (("fallback", "cascade"), ("audit", "cascade"), ("audit_texts", "audit")):
        if getattr(options, name) is not None and not getattr(options, needs):
            raise KDError(f"--{name.replace('_', '-')}: expected --{needs} beside it; add it, or leave this out")
    limits = kind(**{name: getattr(options, name) for name in declared})
    for name, option in declared.items():
        if not option.fits(value := getattr(limits, name)):
            raise KDError(f"--{name.replace('_', '-')}: expected {option.expected_for(value)}, got {value}")
    if limits.max_texts > limits.max_waiting:
        sizes = f"{limits.max_waiting} and {limits.max_texts}"
        raise KDError(f"expected --max-waiting to be at least --max-texts, got {sizes}; change one of them")
    return options, limits


def cascade(options: argparse.Namespace) -> tuple[Classifier, Auditor | None]:
    """Return the cascade of a run, and what audits it, if this is asked for."""
    from kd.cascade.audit import Audit
    from kd.cascade.cascade import Cascade
    from kd.serving.auditing import Auditor
    from kd.storage import cascade_record

    loaded = Cascade.load(options.model, bool(options.fallback))
    if options.audit is None:
        return loaded, None
    audit = Audit(cascade_record.read(options.model), options.audit, options.audit_texts)
    return loaded, Auditor(audit, loaded.stages, loaded.for_another_thread().ask_teacher)
