"""The forms in which a classifier can run: PyTorch, compiled, ONNX, and ONNX with 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from warnings import catch_warnings

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from kd.classifier import label_order
from kd.export import classifier, folder, write
from kd.export.checks import Rows
from kd.export.classifier import padded
from kd.export.program import Logits
from kd.measure.cost import parameter_counts
from kd.predictor import Predictor

FORMS = ("eager", "compiled", "onnx", "int8")
Tokenise = Callable[[Sequence[str]], list[list[int]]]
Run = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Form:
    """A classifier in one form.

    Args:
        name: of the classifier.
        form: one of `FORMS`.
        tokenise: gives the token ids of each text.
        run: gives logits ``[B, C]`` for ids and mask ``[B, L]``.
        padding: id of the padding token.
        size: bytes of the model's file.
        path: where `kd.classifier.load` finds it.
        order: for each label of the data, its number in the logits.
    """

    name: str
    form: str
    tokenise: Tokenise
    run: Run
    padding: int
    size: int
    path: Path
    order: Sequence[int]

    def answer(self, texts: Sequence[str]) -> np.ndarray:
        """Return the logits ``[B, C]`` of texts in one batch, in the order of the data's labels."""
        return self.run(*padded(self.tokenise(texts), self.padding))[:, self.order]


def forms_of(
    name: str,
    predictor: Predictor,
    path: Path,
    wanted: Sequence[str],
    texts: Sequence[str],
    place: Path,
    labels: Sequence[str],
) -> Iterator[Form]:
    """Yield a classifier in the forms that are wanted.

    Args:
        name: of the classifier.
        predictor: the classifier.
        path: where it was loaded from. The exports that are there already are used.
        wanted: some of `FORMS`.
        texts: real ones, for the quantisation of a model with convolutions.
        place: folder for new exports.
        labels: the names of the data's labels.

    Raises:
        KDError: the model has other labels, or cannot be exported.
    """
    order = label_order(predictor.label_names, labels, f"'{path}'")
    weights = next(iter(sorted((path / "model" if (path / "model").is_dir() else path).glob("*.safetensors"))), None)
    size = weights.stat().st_size if weights else 0
    program = Logits(predictor.model).eval()

    def tokenise(rows: Sequence[str]) -> list[list[int]]:
        return predictor.tokenizer(list(rows), truncation=True, max_length=predictor.max_length)["input_ids"]

    torch._dynamo.config.recompile_limit = 100  # all models share the code of `Logits.forward`, which has 8 by default
    for form in wanted:
        if form in ("eager", "compiled"):
            called = program if form == "eager" else torch.compile(program, dynamic=True)
            yield Form(name, form, tokenise, _of_torch(called), predictor.tokenizer.pad_token_id, size, path, order)
        else:
            export = path / "exports" / form
            if not folder.is_export(export):
                # The check of an export is for those that are kept; here its accuracy stands in the table.
                (export, _), *_ = write.exports(
                    predictor, [form], place / name, Rows(list(texts[:64])), texts, {}, force=True
                )
            found = classifier.load(export, torch.get_num_threads())
            own = (export / folder.MODELS[form]).stat().st_size
            yield Form(name, form, found.token_ids, found.run, found.about["padding"], own, export, order)


def _of_torch(called: Callable[..., torch.Tensor]) -> Run:
    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return called(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()

    return run


def size_of(predictor: Predictor, texts: Sequence[str]) -> dict[str, Any]:
    """Return the parameters of a model, and its multiply-adds for a text of the mean length.

    Returns:
        ``parameters``, ``without_embeddings``, ``multiply_adds`` and ``mean_tokens``.
    """
    rows = predictor.tokenizer(list(texts), truncation=True, max_length=predictor.max_length)["input_ids"]
    length = max(1, round(float(np.mean([len(row) for row in rows]))))
    ids = torch.ones(1, length, dtype=torch.int64)
    with (
        catch_warnings(action="ignore"),  # of oneDNN, about Intel's GPUs
        torch.backends.mkldnn.flags(enabled=False),  # its kernel hides the products within an LSTM from the counter
        torch.inference_mode(),
        FlopCounterMode(display=False) as counter,
    ):
        Logits(predictor.model)(ids, torch.ones_like(ids))
    counts = parameter_counts(predictor.model)
    return {
        "parameters": counts["total"],
        "without_embeddings": counts["without_embeddings"],
        "multiply_adds": counter.get_total_flops() // 2,
        "mean_tokens": length,
    }
