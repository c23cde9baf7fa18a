"""Write the README of a saved model in the format of the hub, from the files of its run alone. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from kd.errors import KDError
from kd.measure.significance import accuracy_interval
from kd.report.calibration import BINS, calibration, fit_temperature
from kd.report.evaluations import on_other_data
from kd.report.explanations import explained
from kd.report.origin import command_of
from kd.report.words import listed, short
from kd.run import predictions
from kd.run.directory import RunDirectory
from kd.run.identity import flat
from kd.run.predictions import Split
from kd.storage import audit_record, comparison_record, hub
from kd.storage.assets import ASSETS
from kd.storage.files import read_json

FIGURES = (("macro F1", "macro_f1"), ("balanced accuracy", "balanced_accuracy"), ("AUROC", "auroc"))


def model_card(run: RunDirectory) -> str:
    """Return the model card of a run: what the model is, its data, its figures, its limits and how to use it.

    Args:
        run: a directory with all files but the card; the run may not be marked as done yet.

    Raises:
        KDError: a file of the run cannot be read.
    """
    from jinja2 import Environment

    metrics, environment, settings = run.metrics(), run.environment(), run.config()
    found = predictions.of_run(run, metrics, environment, {})
    test, labels = found["test"], environment["data"]["label_names"]
    tuned = found.get("validation", test)
    temperature = fit_temperature(tuned.logits, tuned.labels)
    teacher = taught_by(metrics)
    machine = environment.get("machine") or {}
    template = files("kd.report").joinpath("model_card.md.j2").read_text(encoding="utf-8")
    return (
        Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
        .from_string(template)
        .render(
            front=front(metrics, test, base_models(settings, environment)),
            title=f"{metrics['student']}, {metrics['method']}, {metrics['data']}",
            labels=listed([f"`{label}`" for label in labels]),
            metrics=metrics,
            parameters=metrics["parameters"],
            teacher=teacher,
            theirs=metrics["test"].get("teacher") if teacher else None,
            command=" ".join(command_of(run, environment)),
            splits=environment["data"]["counts"]["splits"],
            transfer=(environment["data"].get("transfer") or {}).get("rows"),
            results=[accuracies(found), *figures(metrics, teacher is not None)],
            majority=np.bincount(test.labels).max() / len(test.labels),
            fitting=metrics.get("fitting"),
            others=listed(on_other_data(run)),
            before=calibration(test.logits, test.labels),
            after=calibration(test.logits, test.labels, temperature),
            temperature=temperature,
            bins=BINS,
            latency=metrics.get("latency"),
            speedup=metrics.get("speedup"),
            machine=f"{machine.get('processor') or 'an unnamed processor'} ({machine.get('cores')} cores)",
            max_length=settings["data"].get("max_length"),
            **{"audit": audited(run), "explained": explained(run), "compared": compared(run)},
            own=read_json(run.model / "config.json").get("model_type", "").startswith("kd-"),
        )
    )


def audited(run: RunDirectory) -> str | None:
    """Return what ``kd audit`` found; None without an audit, or with a damaged one."""
    try:
        return str(audit_record.read(run.path)["sentence"])
    except KDError:
        return None


@contextmanager
def updated(run: RunDirectory | None) -> Iterator[None]:
    """Write the card of a run again after what is done within, if it was as kd wrote it. None: there is no card."""
    try:
        card = run.model / "README.md" if run else None
        ours = run and card and not card.is_symlink() and card.is_file() and card.read_text("utf-8") == model_card(run)
    except (KDError, ValueError):  # such as a damaged record, which is about to be written again
        ours = False
    yield
    if run and ours:
        write(run)


def compared(run: RunDirectory) -> str | None:
    """Return what ``kd compare`` found; None without a comparison, or with a damaged one."""
    try:
        return str(comparison_record.read(run.path)["sentence"])
    except KDError:
        return None


def taught_by(metrics: dict[str, Any]) -> str | None:
    """Return the name of the teacher; None for a student that learned alone."""
    if metrics["method"] == "supervised":
        return None
    return short((metrics.get("teacher_cost") or {}).get("name") or "its peers")


def base_models(settings: dict[str, Any], environment: dict[str, Any]) -> list[str]:
    """Return the names on the hub of the teacher, and of the checkpoint that the student began with."""
    found = list[str]()
    for key, value in flat({section: settings.get(section) or {} for section in ("teacher", "student")}):
        if key.endswith(".name_or_path"):
            asset = ASSETS.get(str(value).removeprefix("asset:"))
            named = asset.hub if asset else hub.parted(value)[0] if value in (environment.get("hub") or {}) else None
            found += [named] if named and named not in found else []
    return found


def front(metrics: dict[str, Any], test: Split, base: list[str]) -> str:
    """Return the metadata that the hub reads, as YAML between two lines of dashes."""
    from huggingface_hub import EvalResult, ModelCardData

    result = EvalResult(
        task_type="text-classification",
        dataset_type=metrics["data"],
        dataset_name=metrics["data"],
        dataset_split="test",
        metric_type="accuracy",
        metric_value=round(float(test.correct.mean()), 4),
    )
    card = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=["kd", "knowledge-distillation", metrics["student"]],
        base_model=base or None,
        model_name=f"{metrics['student']}-{metrics['method']}",
        eval_results=[result],
    )
    return f"---\n{card.to_yaml()}\n---"


def accuracies(found: dict[str, Split]) -> tuple[str, ...]:
    """Return the row of the table with both accuracies and their intervals, in percent."""
    cells = []
    for name in ("validation", "test"):
        if name not in found:
            cells.append("-")
            continue
        correct = found[name].correct
        low, high = (100 * bound for bound in accuracy_interval(correct))
        cells.append(f"{100 * correct.mean():.1f} % ({low:.1f} to {high:.1f})")
    return "accuracy", *cells


def figures(metrics: dict[str, Any], taught: bool) -> list[tuple[str, ...]]:
    """Return the other rows of the table."""
    named = [*FIGURES, *([("agreement with the teacher", "agreement")] if taught else [])]
    values = [(title, [metrics[split].get(key) for split in ("validation", "test")]) for title, key in named]
    return [(title, *("-" if value is None else f"{value:.4f}" for value in row)) for title, row in values]


def write(run: RunDirectory) -> Path:
    """Write the card beside the model and return its path."""
    path = run.model / "README.md"
    path.write_text(model_card(run), encoding="utf-8")
    return path
