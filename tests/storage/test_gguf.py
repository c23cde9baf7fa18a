"""The format GGUF: a tiny Llama that the tests write, as llama.cpp does."""

import struct

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kd.errors import KDError
from kd.storage import gguf
from kd.storage.model_folder import load_generator

TOKENS = ["<|endoftext|>", "<|im_end|>", "a", "b", "c", "1", "2", "Ġ", "Ġb", "ab"]
CONFIG = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
CONFIG |= {"intermediate_size": 64, "vocab_size": len(TOKENS), "max_position_embeddings": 128, "rms_norm_eps": 1e-5}


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def setting(key: str, value) -> bytes:
    if isinstance(value, list):
        inner = 8 if isinstance(value[0], str) else 4
        parts = [text(each) if inner == 8 else struct.pack("<I", each) for each in value]
        return text(key) + struct.pack("<IIQ", 9, inner, len(value)) + b"".join(parts)
    kind, layout = (6, "f") if isinstance(value, float) else (4, "I")
    return text(key) + struct.pack(f"<I{layout}", kind, value)


def rotated(values: np.ndarray, heads: int) -> np.ndarray:
    """As llama.cpp's converter writes the projections of queries and keys."""
    return values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)


@pytest.fixture
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**CONFIG, tie_word_embeddings=True, rope_theta=1e5)).eval()


@pytest.fixture
def file(llama, tmp_path):
    settings = {f"llama.{name}": CONFIG[key] for key, name in gguf.SIZES.items()} | {"llama.rope.freq_base": 1e5}
    numbers = {"bos": 0, "eos": 1, "padding": 1}
    settings |= {f"tokenizer.ggml.{name}_token_id": number for name, number in numbers.items()}
    settings |= {"tokenizer.ggml.tokens": TOKENS, "tokenizer.ggml.token_type": [3, 3] + [1] * 8}
    settings |= {"tokenizer.ggml.merges": ["Ġ b", "a b"]}
    heads = {"q_proj": CONFIG["num_attention_heads"], "k_proj": CONFIG["num_key_value_heads"]}
    short = {long: short for short, long in gguf.NAMES.items()}
    directory, body, count = b"", b"", 0
    for name, value in llama.state_dict().items():
        if name == "lm_head.weight":
            continue
        values, part = value.numpy(), name.removesuffix(".weight")
        layer = part.split(".")[2] if ".layers." in part else None
        values = next((rotated(values, number) for end, number in heads.items() if part.endswith(end)), values)
        own = short[part if layer is None else part.split(".", 3)[3]]
        directory += text(f"{f'blk.{layer}.' if layer else ''}{own}.weight") + struct.pack("<I", values.ndim)
        directory += struct.pack(f"<{values.ndim}Q", *values.shape[::-1]) + struct.pack("<IQ", 0, len(body))
        body, count = body + values.tobytes(), count + 1
    head = b"GGUF" + struct.pack("<IQQ", 3, count, len(settings))
    head += b"".join(setting(key, value) for key, value in settings.items()) + directory
    path = tmp_path / "tiny.gguf"
    path.write_bytes(head + bytes(-len(head) % 32) + body)
    return path


def test_the_converted_model_predicts_the_same(file, llama, tmp_path):
    (tmp_path / "model").mkdir()
    gguf.convert(file, tmp_path / "model")
    model, tokenizer = load_generator(tmp_path / "model")
    ids = tokenizer("ab 12c", return_tensors="pt").input_ids
    assert tokenizer.convert_ids_to_tokens(ids[0]) == ["ab", "Ġ", "1", "2", "c"]
    assert (tokenizer.eos_token, model.config.eos_token_id) == ("<|im_end|>", 1)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, llama(ids).logits, rtol=0, atol=1e-3)


def test_blocks_are_multiplied_out():
    block = np.zeros((2, 1), gguf.Q4_1)
    block["scale"], block["least"], block["halves"] = 0.5, -2, np.arange(16) | 15 << 4
    assert gguf.dequantised(block).tolist() == [[q / 2 - 2 for q in range(16)] + [5.5] * 16] * 2
    block = np.zeros(1, gguf.Q8_0)
    block["scale"], block["whole"] = 0.25, np.arange(-16, 16)
    assert gguf.dequantised(block).tolist() == [q / 4 for q in range(-16, 16)]


def test_other_files_are_refused(file, tmp_path):
    (tmp_path / "other").write_bytes(b"E5S1" + bytes(100))
    with pytest.raises(KDError, match=r"expected a model in the format GGUF in .*found another file"):
        gguf.read(tmp_path / "other")
    content = bytearray(file.read_bytes())
    name = b"token_embd.weight"
    content[content.index(name) + len(name) + 20] = 2  # the type, after the number of dimensions and two sizes
    (tmp_path / "q4_0").write_bytes(content)
    with pytest.raises(KDError, match=r"expected weights as float32, Q4_1 or Q8_0 in .*found type 2 in token_embd"):
        gguf.read(tmp_path / "q4_0")
