"""Compute the identity of a run: a hash of every setting that affects its result. Needs no torch.

Paths and hardware are left out. By the identity, `kd train` finds out whether a directory already holds the run, and a
sweep finds out which jobs are done and which are the same run.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from glob import glob
from pathlib import Path
from typing import Any

from kd.options.methods import CLOSED_FORM, METHODS, UNREAD_IN_CLOSED_FORM
from kd.run import renames
from kd.storage.checksum import digest, file_sha256

FORMAT = 1

NO_DIFFERENCE = (
    *("resume", "rerun", "outputs", "sweep", "objective", "logger", "modules", "callbacks.progress", "cache.max_gb"),
    *("callbacks.pruning", "threads", "compile", "trainer.accelerator", "trainer.strategy", "trainer.inference_mode"),
    *("trainer.enable_model_summary", "trainer.enable_progress_bar", "measure_test"),
)
"""Keys that may differ between two starts of one run: places, displays, hardware, and what may stop it early.
``trainer.precision`` is not among them, because it changes the result."""

GLOBAL_BATCH = ("data.batch_size", "trainer.accumulate_grad_batches", "trainer.devices", "trainer.num_nodes")
"""The factors of the rows in an optimizer step. Only their product counts, so one device may resume a run of two."""

COMPARE_ROWS = ("kd.losses.relation.", "kd.losses.contrastive.", "kd.losses.correlation.")
"""Losses that compare the rows of a batch with each other. Each device compares its own rows: every factor counts."""

OVER_TOKENS = ("kd.losses.attention.TinyBertAttention", "kd.losses.attention.MiniLM")
"""Losses that are a mean over the tokens of a batch."""

LATER: dict[str, Any] = {
    **{"transfer": {}, "transfer_seed": 0, "transfer_rows": None},
    **{"metric": "accuracy", "class_weights": "none"},
    **{"data.stream": False, "data.source.stream": False, "data.shard_rows": 32768},
    **{"student.characters": 0, "teacher.words_of": None},
    **{"method.r_drop": 0.0, "method.mixup": 0.0, "optim.find": False},
    **{"method.consistency": 0.0, "method.fair_weights": 0.0},
    **{f"data.{place}{key}": None for place in ("", "source.") for key in ("delimiter", "quoting", "header", "fold")},
    **{"selection.rows": None, "selection.by": "random", "selection.balanced": False, "selection.path": None},
    **{"data.labelled": None, "data.source.labelled": None},
    **{"data.folds": 10, "data.source.folds": 10},
}
"""Options added after the first release, with the default that reproduces the old behaviour. At that default they are
left out of the hash, so older runs keep their identity."""

LATER_OF_TEACHERS = {"average": 0.0, "layer_decay": 1.0, "search": False, "seeds": 1}
"""The same for the options of every teacher below ``teacher``: about its fine-tuning, with the value that changes
nothing."""
OF_TRANSFER_SET = ("transfer", "transfer_seed", "transfer_rows")
"""Keys of the steps that make a transfer set. Without a step, or with ``transfer_rows=0``, none of them counts."""

SPEED = ("labelling_batch_size", "answer_device")
"""Options of a teacher that its outputs do not depend on."""

NUMBERS = ("alpha", "temperature", "label_smoothing", "loss", "balance")
"""Groups of keys in which 2 and 2.0 are equal: a default of 2.0 and ``temperature=2`` are one run. Under ``trainer``
they differ: ``limit_val_batches=1`` is one batch, 1.0 is all of them."""

TOWARDS_WORDS = ("kd.features.fitted_mapper.LeastSquares", "kd.features.fitted_mapper.Procrustes")
"""Mappers that are fitted to the initial word table of the student."""

PLACES = ("path", "train", "validation", "test", "unlabelled", "name_or_path", "words_of")
"""Keys that may name a file or a folder. Its content counts, not its path."""


def identity(config: Mapping[str, Any]) -> str:
    """Return the identity of the run that a resolved configuration describes."""
    return digest({"format": FORMAT, "config": decisive(config)}, default=str)[:20]


def fingerprint(node: Mapping[str, Any]) -> str:
    """Return a hash of a part of a configuration and of the files that it names."""
    return digest(content_of(node), default=str)


def content_of(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flat keys of a part of a configuration, with checksums in place of the files that it names."""
    return {key: _content(value) if key.split(".")[-1] in PLACES else value for key, value in flat(node)}


def has_transfer_set(config: Mapping[str, Any]) -> bool:
    """Return whether steps make texts for the transfer set of a run."""
    return bool(config.get("transfer")) and config.get("transfer_rows") != 0


def decisive(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flat keys that affect a run's result. Files and folders are replaced by checksums of their content."""
    absent = NO_DIFFERENCE + unread(config)
    found = {
        key: _content_of(key, value)
        for key, value in flat(renames.first(config))
        if not any(key == prefix or key.startswith(f"{prefix}.") for prefix in absent)
        and not key.endswith(SPEED)
        and not is_later_default(key, value)
    }
    batch, terms = global_batch(found), [] if "loss" in unread(config) else list((config.get("loss") or {}).values())
    in_one_piece = batch == found.get("data.batch_size")
    if batch is None or compares_rows(config) or not (in_one_piece or all(map(is_mean_over_rows, terms))):
        return found
    return {key: value for key, value in found.items() if key not in GLOBAL_BATCH} | {"batch": batch}


def _content_of(key: str, value: Any) -> Any:
    """Return what counts of a value: the content of files; of a student that selects rows, that of its model alone."""
    if key == "selection.path" and isinstance(value, str) and Path(value).is_dir():
        model = Path(value) / "model" if (Path(value) / "model").is_dir() else Path(value)
        return {path.name: file_sha256(path) for path in sorted(model.glob("*.safetensors"))}
    return _content(value) if key.split(".")[-1] in PLACES else number(key, value)


def is_later_default(key: str, value: Any) -> bool:
    """Return whether an option was added after the first release, and has the value of the old behaviour."""
    of_teacher = key.startswith("teacher.") and (key.split(".")[-1], value) in LATER_OF_TEACHERS.items()
    return of_teacher or (key in LATER and value == LATER[key])


def number(key: str, value: Any) -> Any:
    """Return the value; a whole number below `NUMBERS` as a float."""
    return float(value) if type(value) is int and key.split(".")[0] in NUMBERS else value


def global_batch(found: Mapping[str, Any]) -> int | None:
    """Return the rows in an optimizer step, from flat keys; None if a factor is known only at run time, as ``auto``."""
    factors = [found[key] for key in GLOBAL_BATCH if key in found]
    return math.prod(factors) if all(type(value) is int for value in factors) else None


def compares_rows(config: Mapping[str, Any]) -> bool:
    """Return whether rows of a batch are compared or mixed with each other, so that the size of each batch counts."""
    if config["method"].get("mixup"):
        return True
    terms = (value for key, value in flat(config.get("loss") or {}) if key.endswith("._target_"))
    return "loss" not in unread(config) and any(term.startswith(COMPARE_ROWS) for term in terms)


def is_mean_over_rows(term: Mapping[str, Any]) -> bool:
    """Return whether a loss is certainly the mean over single rows, so that two half batches equal a whole one.

    It is not certain for a user's own loss, which may compare the rows. The object has the same property,
    `kd.contract.Loss.is_mean_over_rows`; a test compares the two.
    """
    target = term.get("_target_", "")
    sure = target.startswith("kd.losses.") and not target.startswith((*COMPARE_ROWS, *OVER_TOKENS))
    return sure and term.get("level") != "token" and term.get("over") != "batch"


def unread(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the groups of keys that the run's method and student do not read, and the keys of their choices."""
    options = METHODS.get(config["method"]["_target_"])
    found = options.unread if options else ()
    if "embeddings" in found and config["mapper"]["_target_"] in TOWARDS_WORDS:
        found = tuple(group for group in found if group != "embeddings")
    if (config.get("student") or {}).get("_target_") in CLOSED_FORM:
        found = (*found, *UNREAD_IN_CLOSED_FORM)
    if not has_transfer_set(config):
        selects = (config.get("selection") or {}).get("rows") is not None  # it draws by transfer_seed too
        found = (*found, *(key for key in OF_TRANSFER_SET if not (selects and key == "transfer_seed")))
    return found + tuple(f"choices.{group}" for group in found)


def flat(node: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the keys joined by dots with their values; an empty group is a value."""
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{place}{key}.")
        else:
            yield f"{place}{key}", value


def _content(value: Any) -> Any:
    """Return a checksum of the file or folder that a value names; any other value as it is."""
    if isinstance(value, list):
        return [_content(part) for part in value]
    if not isinstance(value, str):
        return value
    if not Path(value).exists():  # it may be a pattern, such as train-*.csv
        return [_content(found) for found in sorted(glob(value, recursive=True))] or value
    path = Path(value).resolve()
    files = [path] if path.is_file() else sorted(part for part in path.rglob("*") if part.is_file())
    if (path.parent / "status.json").is_file():  # the model of a run, whose card later commands write again
        files = [file for file in files if file.name != "README.md"]
    names = ("" if path.is_file() else file.relative_to(path).as_posix() for file in files)
    content = "".join(f"{name}:{file_sha256(file)}\n" for name, file in zip(names, files, strict=True))
    return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"
