"""Classify texts with an export. Needs numpy and tokenizers, and onnxruntime for all kinds but ``torch``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kd.data.words import Words
from kd.errors import KDError
from kd.export import folder


class Exported(ABC):
    """The export in a folder, as a `kd.classifier.Classifier`.

    Args:
        path: the folder.
        about: what `kd.export.folder.read` returns.
        threads: number of threads for a batch; None lets the library choose.

    Raises:
        KDError: the tokenizer or the model cannot be read.
    """

    def __init__(self, path: Path, about: dict[str, Any], threads: int | None = None):
        from tokenizers import Tokenizer

        self.path, self.about = path, about
        self.label_names: list[str] = about["labels"]
        self.max_length: int = about["max_length"]
        self.text_column: str = about["text"]
        try:
            self.tokenizer = Tokenizer.from_file(str(path / folder.TOKENIZER))
            self.tokenizer.no_truncation()
            self.tokenizer.no_padding()
            self.words = Words.of(self.tokenizer)
            if not self.words:
                self.tokenizer.enable_truncation(self.max_length)
            self.open(path / folder.MODELS[about["kind"]], threads)
        except Exception as error:  # each library has classes of its own
            reason = " ".join(str(error).split())[:200]
            raise KDError(
                f"cannot use the export in '{path}' ({reason}); update the libraries, or export it again"
            ) from error

    @abstractmethod
    def open(self, model: Path, threads: int | None) -> None:
        """Load the model."""

    @abstractmethod
    def run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Return the logits ``[B, C]`` for token ids and attention mask, both ``[B, L]`` int64."""

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, with special tokens, truncated to ``max_length``."""
        if self.words:
            return self.words(texts, self.max_length)
        return [encoding.ids for encoding in self.tokenizer.encode_batch_fast(list(texts))]

    def logits(self, texts: Sequence[str], batch_size: int = 64) -> np.ndarray:
        """Return logits ``[N, C]``, float32, row i for text i."""
        rows = self.token_ids(texts)
        found = np.empty((len(rows), len(self.label_names)), np.float32)
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))  # rows of similar length share a batch
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            found[batch] = self.run(*padded([rows[row] for row in batch], self.about["padding"]))
        if len(bad := np.flatnonzero(~np.isfinite(found).all(axis=1))):
            shown = texts[bad[0]][:60]
            raise KDError(
                f"expected finite logits, found others for {len(bad)} texts, first {shown!r}; export it again"
            )
        return found

    def probabilities(self, texts: Sequence[str], batch_size: int = 64) -> np.ndarray:
        """Return probabilities ``[N, C]``; each row sums to 1."""
        return softmax(self.logits(texts, batch_size))


class OnnxClassifier(Exported):
    """An export of the kinds ``onnx``, ``int8`` and ``fp16``, run by ONNX Runtime on the CPU."""

    def open(self, model: Path, threads: int | None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise KDError("expected the package onnxruntime; install it: pip install 'kd[export]'") from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        options.intra_op_num_threads = threads or 0
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # leave the cores to other processes
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return self.session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0]


class ProgramClassifier(Exported):
    """An export of the kind ``torch``."""

    def open(self, model: Path, threads: int | None) -> None:
        import torch

        self.program = torch.export.load(model).module()
        if threads:
            torch.set_num_threads(threads)

    def run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode():
            return self.program(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities ``[N, C]`` of logits. scipy may not be installed here."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return powers / powers.sum(axis=1, keepdims=True)


def padded(rows: Sequence[Sequence[int]], padding: int) -> tuple[np.ndarray, np.ndarray]:
    """Return token ids and attention mask ``[B, L]`` int64, padded on the right, with L at least 1.

    >>> padded([[4, 5], [6]], 0)[0].tolist()
    [[4, 5], [6, 0]]
    """
    if len(rows) == 1 and rows[0]:  # a short cut: six times as fast
        ids = np.array(rows, np.int64)
        return ids, np.ones_like(ids)
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(max(1, lengths.max())) < lengths[:, None]
    ids = np.full(mask.shape, padding, np.int64)
    ids[mask] = np.concatenate([np.array(row, np.int64) for row in rows])
    return ids, mask.astype(np.int64)


def load(path: Path, threads: int | None = None) -> Exported:
    """Load an export.

    Raises:
        KDError: it is damaged, a newer kd wrote it, or a package that it needs is missing.
    """
    about = folder.read(path)
    return (ProgramClassifier if about["kind"] == "torch" else OnnxClassifier)(path, about, threads)
