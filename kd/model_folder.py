"""Hugging Face folders: where a model lies, what tells its weights from others, and how it is read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from kd.checksum import file_sha256
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
        digest.update(path.name.encode() + bytes.fromhex(file_sha256(path)))
    return digest.hexdigest()


def load_config(folder: Path) -> PretrainedConfig:
    """The model's configuration; code that comes with it is never run.

    Raises:
        KDError: what stands there cannot be read. So do the other two.
    """
    return _read(AutoConfig, folder)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The model's tokenizer, cutting and padding on the right whatever its folder says."""
    tokenizer = _read(AutoTokenizer, folder)
    tokenizer.truncation_side = tokenizer.padding_side = "right"
    return tokenizer


def load_classifier(folder: Path, new_head: bool = False, **config: Any) -> PreTrainedModel:
    """The classifier in float32 and evaluation mode.

    Args:
        folder: with weights and configuration.
        new_head: allow weights without a classification head, or with one of another size; it starts random.
        config: what to change in the configuration, such as ``id2label``.

    Raises:
        KDError: unreadable, or no trained head where ``new_head`` is false.
    """
    options = {"dtype": torch.float32, "ignore_mismatched_sizes": new_head, "output_loading_info": True}
    model, info = _read(AutoModelForSequenceClassification, folder, **options, **config)
    missing = sorted(info["missing_keys"])
    if missing and not new_head:
        raise KDError(
            f"expected a trained classifier in '{folder}', found no weights for {', '.join(missing[:3])}; "
            "fine-tune it first (teacher.fine_tune=true)"
        )
    return model.eval()


def longest_text(config: PretrainedConfig) -> int | None:
    """Tokens that the model's position table holds; None where there is no such limit."""
    positions = getattr(config, "max_position_embeddings", None)
    # RoBERTa and its kin number positions from padding_idx + 1 on.
    offset = (config.pad_token_id or 0) + 1 if "roberta" in config.model_type else 0
    return None if positions is None else positions - offset


def require_length(name: str, config: PretrainedConfig, max_length: int, option: str) -> None:
    """Refuse a length that the model has no positions for.

    Raises:
        KDError: with the longest that will do.
    """
    longest = longest_text(config)
    if longest is not None and max_length > longest:
        raise KDError(
            f"{option}: '{name}' reads at most {longest} tokens, got {max_length}; set {option}={longest} or less"
        )


def _read(kind: type, folder: Path, **options: Any) -> Any:
    try:
        return kind.from_pretrained(folder, trust_remote_code=False, **options)
    except Exception as error:  # a damaged folder shows as any of a dozen kinds, from JSON to safetensors
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise KDError(f"cannot read the model in '{folder}' ({reason}); fetch or save it again") from error
