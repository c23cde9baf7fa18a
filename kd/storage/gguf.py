"""Read SmolLM2 out of llama.cpp's format GGUF, and write it as a Hugging Face folder. Needs no torch.

The file has, in little-endian bytes: the magic ``GGUF`` and a version; settings; a directory of tensors; the tensors.
Norms are float32. Weights are blocks of 32 in a row: Q8_0 has a float16 scale ``d`` and 32 whole numbers q, which mean
``q d``; Q4_1 has float16 numbers ``d`` and ``m`` and 16 bytes. Byte j has the weight j in its low half and j + 16 in
its high half, and a half q means ``q d + m``. They are written as float16, which rounds less than the blocks did.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; SmolLM2: https://arxiv.org/abs/2502.02737
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors.numpy import save

from kd.errors import KDError

NUMBERS = ("B", "b", "H", "h", "I", "i", "f", "?", "", "", "Q", "q", "d")
"""The layout of a setting by the number of its type. Type 8 is a text, type 9 a list."""
TEXT, LIST = 8, 9
Q4_1 = np.dtype([("scale", "<f2"), ("least", "<f2"), ("halves", "u1", 16)])
Q8_0 = np.dtype([("scale", "<f2"), ("whole", "i1", 32)])
BLOCKS = {0: np.dtype("<f4"), 3: Q4_1, 8: Q8_0}
"""By the number of a tensor's type."""
NAMES = {
    **{"token_embd": "model.embed_tokens", "output_norm": "model.norm", "attn_norm": "input_layernorm"},
    **{f"attn_{part}": f"self_attn.{part}_proj" for part in "qkv"},
    **{"attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm"},
    **{f"ffn_{part}": f"mlp.{part}_proj" for part in ("gate", "up", "down")},
}
SIZES = {
    **{"hidden_size": "embedding_length", "num_hidden_layers": "block_count"},
    **{"num_attention_heads": "attention.head_count", "num_key_value_heads": "attention.head_count_kv"},
    **{"intermediate_size": "feed_forward_length", "max_position_embeddings": "context_length"},
    **{"vocab_size": "vocab_size", "rms_norm_eps": "attention.layer_norm_rms_epsilon"},
}
"""The keys of ``config.json``, and those of the settings below ``llama``."""


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read the settings, and the tensors by the names of the file: float32 numbers, or blocks, in the last dimension.

    Raises:
        KDError: the file is of another kind, or has another kind of weights.
    """
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise KDError(f"expected a model in the format GGUF in '{path}', found another file")
        _version, tensors, settings = _numbers(file, "IQQ")
        found = {_text(file): _value(file, *_numbers(file, "I")) for _ in range(settings)}
        directory = {_text(file): _place(file) for _ in range(tensors)}
        step = found.get("general.alignment", 32)
        start = -(-file.tell() // step) * step
    data, arrays = np.memmap(path, mode="r"), {}
    for name, (shape, kind, offset) in directory.items():
        if kind not in BLOCKS:
            raise KDError(f"expected weights as float32, Q4_1 or Q8_0 in '{path}', found type {kind} in {name}")
        block = BLOCKS[kind]
        rows = (*shape[:-1], shape[-1] // (32 if block.names else 1))
        size = int(np.prod(rows)) * block.itemsize
        arrays[name] = data[start + offset : start + offset + size].view(block).reshape(rows)
    return found, arrays


def _numbers(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    return struct.unpack(f"<{layout}", file.read(struct.calcsize(f"<{layout}")))


def _text(file: BinaryIO) -> str:
    return file.read(*_numbers(file, "Q")).decode()


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == TEXT:
        return _text(file)
    if kind == LIST:
        inner, count = _numbers(file, "IQ")
        return [_value(file, inner) for _ in range(count)]
    return _numbers(file, NUMBERS[kind])[0]


def _place(file: BinaryIO) -> tuple[tuple[int, ...], int, int]:
    """Return the shape of a tensor as numpy writes it, its type and where it begins."""
    (dimensions,) = _numbers(file, "I")
    shape = _numbers(file, f"{dimensions}Q")[::-1]
    return shape, *_numbers(file, "IQ")


def dequantised(blocks: np.ndarray) -> np.ndarray:
    """Return the weights of blocks, float32."""
    if blocks.dtype not in (Q4_1, Q8_0):
        return blocks
    scale = blocks["scale"].astype(np.float32)[..., None]
    if blocks.dtype == Q8_0:
        values = blocks["whole"] * scale
    else:
        halves = np.concatenate([blocks["halves"] & 15, blocks["halves"] >> 4], axis=-1)
        values = halves * scale + blocks["least"].astype(np.float32)[..., None]
    return values.reshape(*blocks.shape[:-1], -1)


def convert(path: Path, folder: Path) -> None:
    """Write the model of a file into an existing folder: weights, configuration and tokenizer.

    Raises:
        KDError: the file is of another kind.
    """
    settings, arrays = read(path)
    tokens = settings["tokenizer.ggml.tokens"]
    config = {key: settings[f"llama.{name}"] for key, name in SIZES.items()}
    config |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "float16"}
    config |= {"rope_parameters": {"rope_type": "default", "rope_theta": settings["llama.rope.freq_base"]}}
    config |= {f"{name}_token_id": settings[f"tokenizer.ggml.{name}_token_id"] for name in ("bos", "eos")}
    config |= {"pad_token_id": settings["tokenizer.ggml.padding_token_id"], "tie_word_embeddings": True}
    special = {f"{name}_token": tokens[config[f"{name}_token_id"]] for name in ("bos", "eos", "pad")}
    tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    tokenizer |= {"model_max_length": config["max_position_embeddings"]}
    tokenizer |= {"model_input_names": ["input_ids", "attention_mask"]}
    contents = {"config.json": config, "tokenizer.json": tokenizer_json(settings), "tokenizer_config.json": tokenizer}
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(save(weights(config, arrays), metadata={"format": "pt"}))


def weights(config: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the weights by Llama's names, float16."""
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    found = {}
    for name, array in arrays.items():
        *layer, short, kind = name.split(".")
        values = dequantised(array)
        if short in heads:  # llama.cpp rotates neighbouring dimensions, transformers one half with the other
            values = values.reshape(heads[short], -1, 2, values.shape[-1]).swapaxes(1, 2).reshape(values.shape)
        prefix = f"model.layers.{layer[1]}." if layer else ""
        found[f"{prefix}{NAMES[short]}.{kind}"] = np.ascontiguousarray(values, np.float16)
    return found


def tokenizer_json(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the content of ``tokenizer.json``: byte-level BPE, each digit by itself."""
    tokens, kinds = settings["tokenizer.ggml.tokens"], settings["tokenizer.ggml.token_type"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        **{"version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None},
        "added_tokens": [
            {"id": number, "content": token, **flags}
            for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
            if kind == 3  # a control token
        ],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, level]},
        "decoder": level,
        "model": {
            "type": "BPE",
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": settings["tokenizer.ggml.merges"],
        },
    }
