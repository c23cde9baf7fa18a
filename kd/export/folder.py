"""The folder of an export: a model that runs without kd's Python classes. Reading it needs the standard library alone.

=================  ==================================================================================
``export.json``    what `write` got: the kind, the labels, the check, and the SHA-256 of each file below
``model.onnx``     the model, from ``input_ids`` and ``attention_mask`` to ``logits``; or ``model.pt2``
``tokenizer.json``  the tokenizer, as the library tokenizers reads it
``README.md``      the model card
``index.html``     of the kind ``web``: a page that classifies in a browser; the files that it reads lie beside it
=================  ==================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd.errors import KDError, NewerError
from kd.storage.checksum import digest, file_sha256

FORMAT = 1
"""The format that this kd writes. It grows when an older kd could not use the folder."""
ABOUT = "export.json"
SEAL = "sha256_of_the_rest"
TOKENIZER = "tokenizer.json"
MODELS = {"onnx": "model.onnx", "int8": "model.onnx", "fp16": "model.onnx", "torch": "model.pt2", "web": "model.onnx"}
"""The kinds of export, and the file with the model of each."""
EXPECTED: Mapping[str, type | tuple[type, ...]] = {
    "kind": str,
    "labels": list,
    "max_length": int,
    "padding": int,
    "text": str,
    "files": dict,
}
"""The keys that a reader needs, with their types."""


def is_export(path: Path) -> bool:
    """Return whether a path is the folder of an export."""
    return (path / ABOUT).is_file()


def write(folder: Path, about: Mapping[str, Any]) -> None:
    """Write ``export.json`` for the files that are in the folder already."""
    files = {path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.suffix != ".md"}
    content = json.loads(json.dumps({"format": FORMAT, **about, "files": files}))
    (folder / ABOUT).write_text(json.dumps({**content, SEAL: digest(content)}, indent=2) + "\n", encoding="utf-8")


def read(folder: Path) -> dict[str, Any]:
    """Return what ``export.json`` says, after a comparison of all checksums.

    Raises:
        KDError: a file is missing or was changed, or (`NewerError`) a newer kd wrote the folder.
    """
    try:
        content = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        seal = content.pop(SEAL, None)
        version = content.get("format")
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(folder, f"{ABOUT} cannot be read") from error
    if isinstance(version, int) and version > FORMAT:
        raise NewerError(
            f"'{folder}' is of a newer kd: expected format {FORMAT}, found {version}; update kd to read it"
        )
    right = all(isinstance(content.get(name), kind) for name, kind in EXPECTED.items())
    if seal != digest(content) or not right or content["kind"] not in MODELS:
        raise _damaged(folder, f"{ABOUT} does not match its own checksum")
    for name in (MODELS[content["kind"]], TOKENIZER):
        if not (folder / name).is_file():
            raise _damaged(folder, f"{name} is missing")
        if content["files"].get(name) != file_sha256(folder / name):
            raise _damaged(folder, f"{name} does not match its checksum")
    return content


def _damaged(folder: Path, reason: str) -> KDError:
    return KDError(f"the export in '{folder}' is damaged: {reason}; copy it again, or repeat kd export")
