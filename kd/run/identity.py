"""Which run a configuration describes: what two starts must have in common to be the same run.

The one definition. `kd train` asks it whether a directory already holds this run, a sweep asks it which jobs are
done, and whether two jobs are one. Needs no torch.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kd.options.methods import METHODS
from kd.run import renames
from kd.storage.checksum import digest, file_sha256

FORMAT = 1

NO_DIFFERENCE = (
    *("resume", "rerun", "outputs", "sweep", "objective", "logger", "modules", "callbacks.progress", "cache.max_gb"),
    *(
        "callbacks.pruning",
        "threads",
        "trainer.accelerator",
        "trainer.strategy",
        "trainer.inference_mode",
        "compile",
        "trainer.enable_model_summary",
        "trainer.enable_progress_bar",
    ),
)
"""Keys that may differ between two starts of one run: where it stands, what shows it, what it computes on, and what may
end it before it is done. Not among them: ``trainer.precision``."""

GLOBAL_BATCH = ("data.batch_size", "trainer.accumulate_grad_batches", "trainer.devices", "trainer.num_nodes")
"""The factors of the rows of an optimizer step. Their product counts, so that one device may resume a run of two."""

COMPARE_ROWS = ("kd.losses.relation.", "kd.losses.contrastive.", "kd.losses.correlation.")
"""Losses that compare the rows of a batch with each other. Each device sees its own rows: every factor counts."""

OVER_TOKENS = ("kd.losses.attention.TinyBertAttention", "kd.losses.attention.MiniLM")
"""Losses that are a mean over the tokens of a batch."""

LATER = {"data.stream": False, "data.source.stream": False, "data.shard_rows": 32768}
"""Keys that came later, with the value that says what was done before: with it they are not told from no such key, so
that older runs keep their names."""

SPEED = ("labelling_batch_size", "answer_device")
"""Of a teacher, wherever it stands: its answers do not depend on them."""

NUMBERS = ("alpha", "temperature", "label_smoothing", "loss", "balance")
"""Groups of keys in which 2 is 2.0: a default of 2.0 and ``temperature=2`` are one run. Not so under ``trainer``, where
``limit_val_batches=1`` is one batch and 1.0 all of them."""

TOWARDS_WORDS = ("kd.features.fitted_mapper.LeastSquares", "kd.features.fitted_mapper.Procrustes")
"""Mappers that are fitted to the word table which the student would have."""

PLACES = ("path", "train", "validation", "test", "unlabelled", "name_or_path")
"""Keys that may name a file or a folder: what is in it counts, not where it stands."""


def identity(config: Mapping[str, Any]) -> str:
    """The name of the run that a resolved configuration describes, the same wherever and on whatever it runs."""
    parts = {"format": FORMAT, "config": decisive(config)}
    return digest(parts, default=str)[:20]


def fingerprint(node: Mapping[str, Any]) -> str:
    """Of a part of a configuration, with the content of its files."""
    parts = {key: _content(value) if key.split(".")[-1] in PLACES else value for key, value in flat(node)}
    return digest(parts, default=str)


def decisive(config: Mapping[str, Any]) -> dict[str, Any]:
    """Flat keys of what decides a run's result, with the content of files and folders in place of their names."""
    absent = NO_DIFFERENCE + unread(config)
    found = {
        key: _content(value) if key.split(".")[-1] in PLACES else number(key, value)
        for key, value in flat(renames.first(config))
        if not any(key == prefix or key.startswith(f"{prefix}.") for prefix in absent)
        and not key.endswith(SPEED)
        and not (key in LATER and value == LATER[key])
    }
    batch, terms = global_batch(found), [] if "loss" in unread(config) else list((config.get("loss") or {}).values())
    in_one_piece = batch == found.get("data.batch_size")
    if batch is None or compares_rows(config) or not (in_one_piece or all(map(is_mean_over_rows, terms))):
        return found
    return {key: value for key, value in found.items() if key not in GLOBAL_BATCH} | {"batch": batch}


def number(key: str, value: Any) -> Any:
    """The value, a whole number of `NUMBERS` as a float."""
    return float(value) if type(value) is int and key.split(".")[0] in NUMBERS else value


def global_batch(found: Mapping[str, Any]) -> int | None:
    """Rows of an optimizer step, from flat keys; None where a number is not known before the run, as with ``auto``."""
    factors = [found[key] for key in GLOBAL_BATCH if key in found]
    return math.prod(factors) if all(type(value) is int for value in factors) else None


def compares_rows(config: Mapping[str, Any]) -> bool:
    """Return whether a term of the run compares the rows of a batch, so that the size of each batch counts."""
    terms = (value for key, value in flat(config.get("loss") or {}) if key.endswith("._target_"))
    return "loss" not in unread(config) and any(term.startswith(COMPARE_ROWS) for term in terms)


def is_mean_over_rows(term: Mapping[str, Any]) -> bool:
    """Return whether a loss is sure to be the mean of its rows' own losses, so that two half batches equal a whole one.

    What is not ours is not sure: a user's own loss may compare the rows. `kd.contract.Loss.is_mean_over_rows` says it
    of the object, and a test holds the two together.
    """
    target = term.get("_target_", "")
    sure = target.startswith("kd.losses.") and not target.startswith((*COMPARE_ROWS, *OVER_TOKENS))
    return sure and term.get("level") != "token" and term.get("over") != "batch"


def unread(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The groups of keys that the run's method does not read, and what names the choices among them."""
    options = METHODS.get(config["method"]["_target_"])
    found = options.unread if options else ()
    if "embeddings" in found and config["mapper"]["_target_"] in TOWARDS_WORDS:
        found = tuple(group for group in found if group != "embeddings")
    return found + tuple(f"choices.{group}" for group in found)


def flat(node: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """Keys joined by dots, with the values at their ends; a group without keys is an end."""
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{place}{key}.")
        else:
            yield f"{place}{key}", value


def _content(value: Any) -> Any:
    if isinstance(value, list):
        return [_content(part) for part in value]
    if not isinstance(value, str) or not Path(value).exists():
        return value
    path = Path(value).resolve()
    files = [path] if path.is_file() else sorted(part for part in path.rglob("*") if part.is_file())
    names = ("" if path.is_file() else file.relative_to(path).as_posix() for file in files)
    content = "".join(f"{name}:{file_sha256(file)}\n" for name, file in zip(names, files, strict=True))
    return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"
