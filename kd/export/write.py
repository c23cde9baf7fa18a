"""Write exports of a classifier, each compared with it before the folder gets its name."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kd.errors import KDError
from kd.export import checks, classifier, folder, graph, program, web
from kd.predictor import Predictor
from kd.storage.files import built_beside
from kd.storage.locks import lock

CALIBRATION = 300
"""Texts that scale the activations of a static quantisation."""
MADE_WITH = {"torch": ("torch", "transformers"), "onnx": ("torch", "transformers", "onnx", "onnxruntime")}


def exports(
    predictor: Predictor,
    kinds: Sequence[str],
    place: Path,
    rows: checks.Rows,
    calibration: Sequence[str],
    source: dict[str, Any],
    force: bool = False,
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Write the exports of a classifier, one after the other.

    Args:
        predictor: the classifier.
        kinds: of `kd.export.folder.MODELS`.
        place: parent of the new folders, which have the names of the kinds.
        rows: what the export is compared on.
        calibration: training texts, for int8.
        source: what is known about the classifier, for ``export.json``.
        force: keep an export that changes too many labels.

    Yields:
        the folder of each export, and what its ``export.json`` says.

    Raises:
        KDError: the model cannot be exported, or the export answers otherwise than the model.
    """
    if not predictor.tokenizer.is_fast:
        raise KDError("expected a tokenizer of the library tokenizers, found one in Python; it cannot be exported")
    if "web" in kinds:
        web.require()
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        graph_file = Path(temporary) / "model.onnx"
        if set(kinds) - {"torch"}:
            graph.save(predictor.model, graph_file)
        for kind in kinds:
            target = place / kind
            with lock(target), built_beside(target) as building:
                about = _written(predictor, kind, building, graph_file, calibration)
                about = {**about, "source": source}
                folder.write(building, about)  # so that the check reads what a user will read
                exported = classifier.load(building)
                about["check"] = checks.compare(predictor.logits, exported.logits, rows)
                if kind == "web":
                    about["check"] |= web.compare(exported, rows.texts)
                if not force:
                    checks.require_few_flips(about["check"], kind)
                (building / folder.ABOUT).unlink()
                folder.write(building, about)
            yield target, folder.read(target)


def _written(
    predictor: Predictor, kind: str, building: Path, graph_file: Path, calibration: Sequence[str]
) -> dict[str, Any]:
    """Write the model and the tokenizer of an export; return the head of its ``export.json``."""
    model, target = predictor.model, building / folder.MODELS[kind]
    padding = predictor.tokenizer.pad_token_id
    about: dict[str, Any] = {
        "kind": kind,
        "labels": predictor.label_names,
        "max_length": predictor.max_length,
        "padding": padding,
        "text": predictor.text_column,
        "made_with": {name: version(name) for name in MADE_WITH["torch" if kind == "torch" else "onnx"]},
    }
    predictor.tokenizer.backend_tokenizer.save(str(building / folder.TOKENIZER))
    if kind == "torch":
        program.save(model, predictor.max_length, target)
    elif kind in ("onnx", "web"):
        target.write_bytes(graph_file.read_bytes())
        if kind == "web":
            about |= web.add_page(building)
    elif kind == "fp16":
        graph.halve(graph_file, target)
    else:
        options = {"truncation": True, "max_length": predictor.max_length}
        texts = list(calibration[:CALIBRATION])
        encoded = predictor.tokenizer(texts, **options)["input_ids"] if texts else []
        about["scheme"] = scheme = graph.scheme_of(model)
        if scheme == "static" and not encoded:
            raise KDError("--to int8: this student needs texts to scale its activations; give them with --file")
        graph.quantise(graph_file, target, scheme, encoded, padding)
    return about
