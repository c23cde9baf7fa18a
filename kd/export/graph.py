"""Export a model to ONNX, and make its weights smaller."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers import PreTrainedModel

from kd.errors import KDError
from kd.export.classifier import padded
from kd.export.program import Logits, example

OPSET = 20
NAMES = ("input_ids", "attention_mask")
SMALL = 256
"""Numbers of a constant that is not worth 16 bits; it may be infinite, such as the score of a masked token."""
CALIBRATION_BATCH = 16
"""Rows in a batch of texts that calibrates a static quantisation."""


def save(model: PreTrainedModel, path: Path) -> None:
    """Write a model as ONNX with 32-bit weights, for any number of rows and any length.

    Raises:
        KDError: the packages of ``kd[export]`` are missing, or torch cannot export the architecture.
    """
    try:
        import onnxscript.optimizer
    except ImportError as error:
        raise KDError("expected the packages onnx and onnxscript; install them: pip install 'kd[export]'") from error
    shape = {0: "batch", 1: "length"}
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                Logits(model),
                example(),
                input_names=NAMES,
                output_names=["logits"],
                dynamic_shapes=(shape, shape),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        kind = model.config.model_type
        raise KDError(f"torch cannot export a model of the type '{kind}' to ONNX; use --to torch ({error})") from error
    # The LSTM's weights in ONNX's order are computed now. A quantiser looks for weights, not for their computation.
    size = 1 << 31
    assert program is not None
    onnxscript.optimizer.optimize(program.model, input_size_limit=size, output_size_limit=size)
    program.save(path, external_data=False)


Scheme = Literal["dynamic", "static"]


def scheme_of(model: PreTrainedModel) -> Scheme:
    """Return how a model is quantised to 8 bits.

    ``dynamic`` scales the activations of each batch at run time. ONNX Runtime has it for LSTMs and matrix products, but
    its integer convolution is slower than the 32-bit one; ``static`` scales them by calibration texts.
    """
    return "static" if any(isinstance(part, torch.nn.Conv1d) for part in model.modules()) else "dynamic"


def quantise(source: Path, target: Path, scheme: Scheme, rows: Sequence[Sequence[int]], padding: int) -> None:
    """Write an ONNX model with 8-bit weights.

    Args:
        source: a model with 32-bit weights.
        target: the new file.
        scheme: see `scheme_of`.
        rows: token ids of texts, for the static scheme.
        padding: id of the padding token.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Batches(CalibrationDataReader):
        def __init__(self) -> None:
            batches = (rows[start : start + CALIBRATION_BATCH] for start in range(0, len(rows), CALIBRATION_BATCH))
            self.feeds = iter([dict(zip(NAMES, padded(batch, padding), strict=True)) for batch in batches])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    with _quiet(), tempfile.TemporaryDirectory() as place:
        ready = Path(place) / "model.onnx"
        quant_pre_process(source, ready, skip_symbolic_shape=True)
        if scheme == "dynamic":
            # Unsigned weights: ONNX Runtime has no integer convolution of signed ones.
            quantize_dynamic(ready, target, weight_type=QuantType.QUInt8)
        else:
            types: dict[str, Any] = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
            quantize_static(ready, target, Batches(), QuantFormat.QDQ, per_channel=True, **types)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what is as it should be: that torchvision is missing, and the scale of a masked token's -inf."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def halve(source: Path, target: Path) -> None:
    """Write an ONNX model with 16-bit weights, which a runtime turns into 32-bit ones when it loads the model.

    The file is half as large. The arithmetic stays 32-bit, because most CPUs have no fast 16-bit arithmetic.

    Raises:
        KDError: a weight is outside the range of 16 bits.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(source)
    graph, casts = model.graph, []
    for weight in graph.initializer:
        if weight.data_type != onnx.TensorProto.FLOAT or np.prod(weight.dims) < SMALL:
            continue
        values, name = numpy_helper.to_array(weight), weight.name
        with np.errstate(over="ignore"):
            small = values.astype(np.float16)
        if not np.isfinite(small).all():
            raise KDError(f"the weights {name} are outside the range of 16 bits; use --to onnx or int8")
        weight.CopyFrom(numpy_helper.from_array(small, f"{name}.fp16"))
        casts.append(helper.make_node("Cast", [weight.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, target)
