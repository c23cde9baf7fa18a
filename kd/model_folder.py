"""Hugging Face folders: where a model lies, and what tells its weights from others."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kd.errors import KDError

FILES = ("*.json", "*.txt", "*.model", "*.safetensors")


def local_model(name_or_path: str) -> Path:
    """The folder of a model: the given one, or the hub's, downloaded on demand.

    Raises:
        KDError: no such folder, and no hub that has it.
    """
    if (Path(name_or_path) / "config.json").is_file():
        return Path(name_or_path)
    if Path(name_or_path).exists():
        raise KDError(
            f"expected a Hugging Face model in '{name_or_path}', found no config.json; "
            "give the folder that save_pretrained wrote"
        )
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name_or_path, allow_patterns=FILES))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(name_or_path, allow_patterns=[*FILES, "pytorch_model*.bin"]))
    except Exception as error:  # the hub's client raises a dozen kinds, all of which mean the same here
        raise KDError(
            f"teacher '{name_or_path}' is neither a folder here nor to be had from the hub "
            f"({type(error).__name__}); check the name and the network, or give a local folder"
        ) from error
    return folder


def folder_checksum(folder: Path) -> str:
    """SHA-256 over the weights, configuration and tokenizer of a Hugging Face folder."""
    digest = hashlib.sha256()
    patterns = (*FILES, "pytorch_model*.bin")
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern)}):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
