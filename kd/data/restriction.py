"""Restrict the vocabulary of a fast tokenizer to the pieces that occur in texts.

A text whose pieces are all kept has the same pieces as before:

* WordPiece takes the longest match first, and this match is kept.
* WordLevel looks each word up.
* BPE applies the merges by rank. With a piece, all pieces from which merges make it are kept, and so are these merges.
  So each merge of the text is still there, and no new one.
* Unigram takes the segmentation with the best sum of scores, and this one is kept. The penalty of an unknown character
  depends on the lowest score of the vocabulary, so a piece with this score is kept too.
"""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from kd.errors import KDError

KINDS = ("WordPiece", "WordLevel", "BPE", "Unigram")


def restricted(
    backend: dict[str, Any], counts: Counter[int], min_count: int = 1, max_size: int | None = None
) -> dict[str, Any]:
    """Return a tokenizer, in the format of ``tokenizer.json``, with a part of its vocabulary.

    It keeps the special and added tokens, the single characters (so that an unseen word still has tokens) and the
    pieces that occur. Unigram vocabularies have characters of all scripts, some 10,000 of them: only those are kept
    that occur. The special tokens come first, then the others in their old order.

    Args:
        backend: a tokenizer in this format, which is not changed.
        counts: how often each id occurs.
        min_count: a piece must occur this often to be kept.
        max_size: largest number of tokens, the most frequent pieces first; None keeps all that occur.

    Raises:
        KDError: `require_known`, or ``max_size`` leaves no room for what must be kept.
    """
    require_known(backend)
    ids = vocabulary(backend)
    named = {number: token for token, number in ids.items()} | {
        token["id"]: token["content"] for token in backend["added_tokens"]
    }
    special = _special(backend, ids, named)
    kept = {*special, *_characters(backend["model"], ids, counts)}
    found = [piece for piece in ids if piece not in kept and counts[ids[piece]] >= min_count]
    if max_size is not None:
        if len(kept) > max_size:
            raise KDError(
                f"tokenizer.max_size must leave room for the {len(special)} special tokens and the "
                f"{len(kept) - len(special)} characters of the vocabulary, got {max_size}; set "
                f"tokenizer.max_size={len(kept)} or more, or use tokenizer=words"
            )
        found.sort(key=lambda piece: (-counts[ids[piece]], ids[piece]))
    sources = _sources(backend["model"])
    for piece in found:
        needed = _with_sources(piece, sources) - kept
        if max_size is None or len(kept) + len(needed) <= max_size:
            kept |= needed
    first = sorted((token for token in special if token in ids), key=ids.__getitem__)
    rest = sorted(kept - special, key=ids.__getitem__)
    outside = [token["content"] for token in backend["added_tokens"] if token["content"] not in ids]
    return _renumbered(backend, [*first, *rest], outside, named)


def require_known(backend: dict[str, Any]) -> None:
    """Refuse a tokenizer with a vocabulary or a post-processor of a kind that `restricted` does not know.

    Raises:
        KDError: names the kind.
    """
    if (kind := backend["model"]["type"]) not in KINDS:
        raise KDError(
            f"tokenizer=restricted: expected a vocabulary of type {', '.join(KINDS)}, found {kind}; use "
            "tokenizer=words or tokenizer=teacher"
        )
    list(_ids_of(backend["post_processor"]))


def vocabulary(backend: dict[str, Any]) -> dict[str, int]:
    """Return the ids of the model's pieces, by rising id; added tokens may be outside."""
    pieces = backend["model"]["vocab"]
    if backend["model"]["type"] == "Unigram":
        return {piece: number for number, (piece, _) in enumerate(pieces)}
    return dict(sorted(pieces.items(), key=lambda item: item[1]))


def _special(backend: dict[str, Any], ids: dict[str, int], named: dict[int, str]) -> set[str]:
    """Return the tokens that do not depend on the texts: those of the post-processor, unknown, bytes and added ones."""
    model = backend["model"]
    special = {token["content"] for token in backend["added_tokens"]}
    for number in _ids_of(backend["post_processor"]):
        if number not in named:
            raise KDError(
                f"the teacher's tokenizer puts the token number {number} around a text, which its vocabulary lacks; "
                "download or save the teacher again"
            )
        special.add(named[number])
    if model["type"] == "Unigram":
        if model["unk_id"] is not None:
            special.add(model["vocab"][model["unk_id"]][0])
        special.add(min(model["vocab"], key=lambda entry: entry[1])[0])
    elif model["unk_token"] in ids:
        special.add(model["unk_token"])
    if model.get("byte_fallback"):
        special.update(piece for byte in range(256) if (piece := f"<0x{byte:02X}>") in ids)
    return special


def _characters(model: dict[str, Any], ids: dict[str, int], counts: Counter[int]) -> Iterable[str]:
    """Return the single characters of a vocabulary that splits words; of a Unigram vocabulary those that occur."""
    if model["type"] == "WordLevel":
        return ()
    if model["type"] == "Unigram":
        return {character for piece, number in ids.items() if counts[number] for character in piece} & ids.keys()
    prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
    return [piece for piece in ids if len(piece.removeprefix(prefix).removesuffix(suffix)) == 1]


def _sources(model: dict[str, Any]) -> dict[str, set[str]]:
    """Return, for each piece that merges make, the pieces that are merged."""
    sources: dict[str, set[str]] = defaultdict(set)
    for left, right in model.get("merges", ()):
        sources[_merged(model, left, right)] |= {left, right}
    return sources


def _merged(model: dict[str, Any], left: str, right: str) -> str:
    return left + right[len(model.get("continuing_subword_prefix") or "") :]


def _with_sources(piece: str, sources: dict[str, set[str]]) -> set[str]:
    """Return a piece, the pieces that it is merged from, those that these are merged from, and so on."""
    found, todo = {piece}, [piece]
    while todo:
        new = sources.get(todo.pop(), set()) - found
        found |= new
        todo += new
    return found


def _renumbered(
    backend: dict[str, Any], pieces: list[str], outside: list[str], named: dict[int, str]
) -> dict[str, Any]:
    """Return the tokenizer with only these pieces and the added tokens outside; ids are places in both lists."""
    ids = {token: number for number, token in enumerate([*pieces, *outside])}
    backend = copy.deepcopy(backend)
    model = backend["model"]
    if model["type"] == "Unigram":
        scores = dict(model["vocab"])
        if model["unk_id"] is not None:
            model["unk_id"] = ids[model["vocab"][model["unk_id"]][0]]
        model["vocab"] = [[piece, scores[piece]] for piece in pieces]
    else:
        model["vocab"] = {piece: ids[piece] for piece in pieces}
    if "merges" in model:
        inside = model["vocab"]
        model["merges"] = [
            [left, right]
            for left, right in model["merges"]
            if left in inside and right in inside and _merged(model, left, right) in inside
        ]
    for token in backend["added_tokens"]:
        token["id"] = ids[token["content"]]
    _renumber(backend["post_processor"], {old: ids[token] for old, token in named.items() if token in ids})
    return backend


def _ids_of(processor: Any) -> Iterator[int]:
    """Yield the ids of the tokens that a post-processor puts around a text.

    Raises:
        KDError: `_renumber` does not know its type.
    """
    match processor and processor["type"]:
        case "TemplateProcessing":
            for special in processor["special_tokens"].values():
                yield from special["ids"]
        case "BertProcessing" | "RobertaProcessing":
            yield from (processor["sep"][1], processor["cls"][1])
        case "Sequence":
            for part in processor["processors"]:
                yield from _ids_of(part)
        case None | "ByteLevel":
            pass
        case other:
            raise KDError(
                f"tokenizer=restricted cannot renumber a post-processor of type {other}; use tokenizer=teacher"
            )


def _renumber(processor: Any, new: dict[int, int]) -> None:
    """Replace the ids in a post-processor, in place."""
    match processor and processor["type"]:
        case "TemplateProcessing":
            for special in processor["special_tokens"].values():
                special["ids"] = [new[number] for number in special["ids"]]
        case "BertProcessing" | "RobertaProcessing":
            for end in ("sep", "cls"):
                processor[end][1] = new[processor[end][1]]
        case "Sequence":
            for part in processor["processors"]:
                _renumber(part, new)
