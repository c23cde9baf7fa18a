"""Make an ONNX export a web page, and run its JavaScript in Node.js to compare it with Python."""

from __future__ import annotations

import json
import shutil
import subprocess
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from kd.errors import KDError
from kd.export.checks import ODD
from kd.export.classifier import Exported
from kd.export.folder import TOKENIZER
from kd.storage.assets import ASSETS, fetch

PAGE = Path(__file__).parent / "page"
CHARACTERS = "characters.json"
LIBRARIES = ("onnxruntime-web", "tokenizers-js")
CHECKED = 32
"""Real texts whose probabilities are compared; the tokens of all texts are."""
LARGEST_DIFFERENCE = 1e-4
"""Of a probability in JavaScript and in Python."""
SEPARATOR = "☺"
"""A character that no normalizer changes, and that nothing else becomes."""
READ = """
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { open, tokeniser } from "./classify.js";
const texts = JSON.parse(readFileSync(0, "utf8"));
"""
TOKENS = """
const read = async (name) => JSON.parse(await readFile(name, "utf8"));
const files = await Promise.all(["export.json", "tokenizer.json", "characters.json"].map(read));
console.log(JSON.stringify(texts.map(tokeniser(...files))));
"""
PROBABILITIES = """
const classifier = await open((name) => readFile(name));
const found = [];
for (const text of texts) found.push(...await classifier.probabilities([text]));
console.log(JSON.stringify(found));
"""


def require() -> None:
    """Download what a page needs, unless it is there.

    Raises:
        KDError: a library cannot be downloaded, or Node.js is missing.
    """
    for name in LIBRARIES:
        fetch(name)
    _node_path()


def add_page(folder: Path) -> dict[str, Any]:
    """Add the page, its libraries and the table of characters to an export's folder that has the tokenizer.

    Returns:
        what the page needs in ``export.json``: the ids of the special tokens before and after a text.
    """
    for name in LIBRARIES:
        for file in ASSETS[name].files:
            shutil.copy(fetch(name) / file, folder)
    for path in PAGE.iterdir():
        shutil.copy(path, folder)
    packages = dict(source.title.rsplit("@", 1) for name in LIBRARIES for source in ASSETS[name].wheels)
    # Node.js reads a .js file as a module only beside such a file. Some servers send .mjs with a wrong type.
    about = {"private": True, "type": "module", "dependencies": packages}
    (folder / "package.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    (folder / CHARACTERS).write_text(json.dumps(characters(tokenizer), separators=(",", ":")), encoding="utf-8")
    one = tokenizer.encode("a")
    start = one.special_tokens_mask.index(0)
    end = len(one.ids) - one.special_tokens_mask[::-1].index(0)
    return {"special_tokens": {"before": one.ids[:start], "after": one.ids[end:]}}


def characters(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return what BERT's normalizer and pre-tokenizer do with each character, as the library tokenizers does it.

    JavaScript has other versions of Unicode, lowercases a sigma at the end of a word otherwise, and
    @huggingface/tokenizers takes rare Chinese characters for letters.

    Returns:
        ``replaced``, runs of code points as ``classify.js`` reads them; ``space`` and ``punctuation``, parts of
        regular expressions. A key is missing where the tokenizer has another normalizer or pre-tokenizer.
    """
    every = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000 and chr(code) != SEPARATOR]
    found: dict[str, Any] = {}
    if type(tokenizer.normalizer).__name__ == "BertNormalizer":
        became = tokenizer.normalizer.normalize_str(SEPARATOR.join(every)).split(SEPARATOR)
        found["replaced"] = _runs((ord(old), _replacement(old, new)) for old, new in zip(every, became, strict=True))
    if type(tokenizer.pre_tokenizer).__name__ == "BertPreTokenizer":
        pieces = [place for _, place in tokenizer.pre_tokenizer.pre_tokenize_str("a".join(every))]
        alone = [start for start, end in pieces if end - start == 1 and start % 2 == 0]
        inside: np.ndarray = np.zeros(2 * len(every), bool)
        for start, end in pieces:
            inside[start:end] = True
        gaps = np.flatnonzero(~inside[:-1]).tolist()
        for name, places in (("punctuation", alone), ("space", gaps)):
            runs = _runs((ord(every[place // 2]), "") for place in places)
            found[name] = "".join(f"\\u{{{first:x}}}-\\u{{{last:x}}}" for first, last, _ in runs)
    return found


def _replacement(old: str, new: str) -> str | None:
    """Return a replacement as ``classify.js`` reads it; the same one for all characters that are treated alike."""
    if "가" <= old <= "힣" and new == unicodedata.normalize("NFD", old):
        return None
    return new.replace(old, "\0")


def _runs(replacements: Iterable[tuple[int, str | None]]) -> list[list[Any]]:
    """Return ``[first, last, replacement]`` of neighbours with the same replacement, without those that stay."""
    runs: list[list[Any]] = []
    for code, replacement in replacements:
        if replacement == "\0":
            continue
        if runs and runs[-1][1] == code - 1 and runs[-1][2] == replacement:
            runs[-1][1] = code
        else:
            runs.append([code, code, replacement])
    return runs


def compare(exported: Exported, texts: Sequence[str]) -> dict[str, float]:
    """Compare the page's JavaScript with Python.

    Args:
        exported: an export with a page.
        texts: real ones; odd ones are added.

    Returns:
        ``texts_in_javascript``, whose tokens are equal, and ``largest_difference_in_javascript`` of a probability.

    Raises:
        KDError: Node.js is missing, or the tokens or the probabilities differ.
    """
    texts = [*ODD, *texts]
    ids = exported.token_ids(texts)
    if other := [text for text, old, new in zip(texts, ids, tokens(exported.path, texts), strict=True) if old != new]:
        raise KDError(
            f"--to web: expected the same tokens from @huggingface/tokenizers in JavaScript, found others for "
            f"{len(other)} of {len(texts)} texts, first {other[0][:60]!r}; use --to onnx"
        )
    few = texts[: len(ODD) + CHECKED]
    difference = np.abs(probabilities(exported.path, few) - exported.probabilities(few)).max()
    if not difference <= LARGEST_DIFFERENCE:
        raise KDError(
            f"--to web: expected probabilities within {LARGEST_DIFFERENCE} of Python's from onnxruntime-web, found a "
            f"difference of {difference:.1e}; use --to onnx"
        )
    return {"texts_in_javascript": len(texts), "largest_difference_in_javascript": float(difference)}


def tokens(folder: Path, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of texts, from the page's JavaScript."""
    return _node(folder, TOKENS, texts)


def probabilities(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """Return the probabilities ``[N, C]`` of texts, from the page's JavaScript."""
    return np.array(_node(folder, PROBABILITIES, texts))


def _node(folder: Path, code: str, texts: Sequence[str]) -> Any:
    command, given = [_node_path(), "--input-type=module", "--eval", READ + code], json.dumps(list(texts))
    done = subprocess.run(command, cwd=folder, input=given, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "Error" in line] or done.stderr.splitlines()
        raise KDError(f"--to web: Node.js cannot run the page ({' '.join(lines)[:200]}); use --to onnx")
    return json.loads(done.stdout)


def _node_path() -> str:
    if node := shutil.which("node"):
        return node
    raise KDError("--to web: expected Node.js, which checks the page, found none; install it, or use --to onnx")
