"""The settings that decide a run's result, and which of them two runs may differ in and still be compared."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from kd.options.methods import CLOSED_FORM, TRANSFER, UNREAD_IN_CLOSED_FORM
from kd.report.words import short
from kd.run import identity

GROUPS = ("student", "embeddings", "tokenizer", "teacher", "data")
"""Groups of choices: their chosen options name the rows of a table."""
NO_DIFFERENCE = tuple(f"{key}." for key in (*identity.NO_DIFFERENCE, "choices", "seed"))
"""Keys in which the runs of one arm may differ, with all below them."""
OF_TRANSFER = (*TRANSFER, "method", "cache")
"""Parts that a supervised run does not read, and that two methods with a teacher may differ in."""
UNREAD_WHEN_FITTED = (*UNREAD_IN_CLOSED_FORM, "choices.embeddings", "global_batch")
"""Settings that a student which is fitted in closed form does not read."""


@dataclass(frozen=True)
class Named:
    """A value with a short name to show; only the value is compared."""

    value: Any
    name: str = field(compare=False, repr=False)

    def __str__(self) -> str:
        return self.name


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return all but the seed that a run's identity counts (`kd.run.identity`), as flat keys.

    A ``_target_`` has its parent's key. Files are left out: `of_files` compares their content, wherever they lie.
    """
    flat, method = dict(identity.flat(config)), config["choices"]["method"]
    found = {f"choices.{group}": config["choices"][group] for group in GROUPS}
    for key, value in flat.items():
        if counts(key, flat) and not (method == "supervised" and root_of(key) in OF_TRANSFER):
            if key.endswith("._target_"):
                key, value = key.removesuffix("._target_"), Named(value, value.rpartition(".")[2])
            whole_number = root_of(key) in identity.NUMBERS and type(value) is float and value.is_integer()
            found[key] = int(value) if whole_number else value  # 2.0 and 2 are one
    with_set = identity.has_transfer_set(config)
    if not with_set:
        found = {key: value for key, value in found.items() if root_of(key) not in identity.OF_TRANSFER_SET}
    found["transfer"] = "+".join(config["transfer"]) if with_set else "none"
    found |= batch_sizes(flat, method != "supervised" and identity.compares_rows(config))
    if method != "supervised":
        found["loss"] = "+".join(config["loss"]) or "none"
    if method == "composition":
        reads_embeddings = config["mapper"]["_target_"] in identity.TOWARDS_WORDS
        found = {key: value for key, value in found.items() if not of_own_vocabulary(key, reads_embeddings)}
    if target_of_student(found) in CLOSED_FORM:
        found = {key: value for key, value in found.items() if not {key, root_of(key)} & set(UNREAD_WHEN_FITTED)}
    return found


def target_of_student(settings: dict[str, Any]) -> str | None:
    """Return the ``_target_`` of the student; None where the settings have none."""
    named = settings.get("student")
    return named.value if isinstance(named, Named) else None


def counts(key: str, flat: dict[str, Any]) -> bool:
    """Return whether runs that differ in this key of the flat configuration may have different results."""
    value, root, last = flat[key], root_of(key), key.rpartition(".")[2]
    if f"{key}.".startswith(NO_DIFFERENCE) or key.endswith(identity.SPEED) or key in identity.GLOBAL_BATCH:
        return False
    if key == "teacher.path" or (root == "data" and last in identity.PLACES):  # see `of_files`
        return False
    if identity.is_later_default(key, value):
        return False
    # Copies of another key count only where they were given a value of their own.
    if root == "loss" and last == "temperature":
        return value != flat.get("temperature")
    if key in ("balance.alpha.value", "balance.temperature.value"):
        return value != flat.get(key.split(".")[1])
    return True


def batch_sizes(flat: dict[str, Any], compares_rows: bool) -> dict[str, Any]:
    """Return the rows of an optimizer step, and its factors where a loss compares the rows of a batch.

    Return the factors alone where one is known only at run time, as with ``auto``.
    """
    factors = {key: flat[key] for key in identity.GLOBAL_BATCH if key in flat}
    batch = identity.global_batch(factors)
    if batch is None:
        return factors
    of_loss = {f"loss.{key.rpartition('.')[2]}": value for key, value in factors.items() if compares_rows}
    return {"global_batch": batch} | of_loss


def of_files(config: dict[str, Any], environment: dict[str, Any], metrics: dict[str, Any]) -> dict[str, Any]:
    """Return checksums: of the rows for training, validation and transfer; of a teacher that kd did not train."""
    rows, data, teacher = environment["data"], config["data"], environment["teacher"]
    parts = [rows.get("train"), rows.get("validation"), (rows.get("transfer") or {}).get("sha256")]
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()
    places = [data.get(key) for key in ("path", "train", "validation", "unlabelled")]
    files = [str(file) for place in places if place for file in (place if isinstance(place, list) else [place])]
    names = "+".join(map(short, files)) or str(data.get("name", "rows"))
    found = {"data.rows": Named(digest, f"{names}@{digest[:7]}")}
    if teacher and metrics["teacher_cost"]["training_seconds"] is None:
        found["teacher.weights"] = Named(teacher["checksum"], teacher["checksum"][:7])
    return found


def of_transfer_set(key: str) -> bool:
    """Return whether runs with the same labelled rows and other transfer sets differ in a setting."""
    return key == "data.rows" or root_of(key) in identity.OF_TRANSFER_SET


def whole(value: Any) -> str:
    """Write a value in full, so that different values have different texts."""
    return str(value.value) if isinstance(value, Named) else repr(value)


def root_of(key: str) -> str:
    return key.partition(".")[0]


def of_own_vocabulary(key: str, reads_embeddings: bool = False) -> bool:
    """Return whether a composition ignores this setting: it has the teacher's vocabulary."""
    groups = ("tokenizer",) if reads_embeddings else ("tokenizer", "embeddings")
    return root_of(key) in groups or key in [f"choices.{group}" for group in groups]
