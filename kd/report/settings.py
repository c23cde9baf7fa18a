"""What decides a run's result, and what two runs may differ in and still be compared."""

from __future__ import annotations

from typing import Any

from kd.options.methods import TRANSFER
from kd.run import identity

GROUPS = ("student", "embeddings", "tokenizer", "teacher", "data")
"""Groups of choices; two options of one group are told apart by name rather than key by key."""
NO_DIFFERENCE = (*identity.NO_DIFFERENCE, "cache", "choices")
"""What may differ between runs of equal result."""
OF_TRANSFER = (*TRANSFER, "method")
"""What a supervised run does not read, and what two ways of transfer may differ in."""


def settings(config: dict[str, Any], method: str) -> dict[str, Any]:
    """What decides a run's result: flat keys of its configuration, groups of choices by the name of the option."""
    found = {f"choices.{group}": config["choices"][group] for group in GROUPS}
    for key, value in identity.flat(config):
        root = key.split(".")[0]
        if key.startswith(NO_DIFFERENCE) or key.endswith(identity.SPEED):
            continue
        if method == "supervised" and root in OF_TRANSFER:
            continue
        if root == "data" and key.split(".")[-1] in identity.PLACES:
            continue  # runs are compared on the same rows, wherever these lie
        if root in ("balance", "mapper") and key.endswith("._target_"):
            found[key.removesuffix("._target_")] = value.rpartition(".")[2]
        if key.endswith(("._target_", "._partial_")) or key.startswith(("callbacks.progress", "data.source")):
            continue
        if root == "loss" and key.endswith(".temperature"):
            continue  # the top-level key says it
        if key in ("balance.alpha.value", "balance.temperature.value"):
            continue  # so here
        found[key] = as_written(value) if root in identity.NUMBERS else value
    rows = found.get("data.batch_size")
    if (batch := identity.global_batch(found)) is not None:  # its factors may differ between equals
        found = {key: value for key, value in found.items() if key not in identity.GLOBAL_BATCH}
        found["global_batch"] = batch
        if identity.compares_rows(config):
            found["loss.batch_size"] = rows
    if method != "supervised":
        found["loss"] = "+".join(config["loss"]) or "none"
    if found.get("method.direction") == "to_student":
        towards_words = config["mapper"]["_target_"] in identity.TOWARDS_WORDS
        found = {key: value for key, value in found.items() if not of_own_words(key, towards_words)}
    return found


def as_written(value: Any) -> Any:
    """A whole number as most people write it, so that 2.0 and 2 are one.

    >>> as_written(2.0), as_written(0.5)
    (2, 0.5)
    """
    return int(value) if type(value) is float and value.is_integer() else value


def of_own_words(key: str, towards_words: bool = False) -> bool:
    """Whether a composition of teacher and student does not read this: it has the teacher's words."""
    groups = ("tokenizer",) if towards_words else ("tokenizer", "embeddings")
    return key.split(".")[0] in groups or key in [f"choices.{group}" for group in groups]
