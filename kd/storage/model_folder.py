"""Hugging Face folders: where a model lies, what tells its weights from others, and how it is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
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

from kd.errors import KDError
from kd.storage import hub
from kd.storage.checksum import file_sha256

FILES = ("*.json", "*.txt", "*.model", "*.safetensors")


def local_model(name_or_path: str, kind: str = "teacher") -> Path:
    """The folder of a model: the given one, or the hub's, downloaded on demand.

    Args:
        name_or_path: a folder, or a name on the hub, pinned as in ``org/model@commit``.
        kind: what the message calls it.

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

    name, revision = hub.parted(name_or_path)
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=FILES))
        if not any(folder.glob("*.safetensors")):  # of the very commit that the rest came from
            patterns = [*FILES, "pytorch_model*.bin"]
            folder = Path(snapshot_download(name, revision=folder.name, allow_patterns=patterns))
    except Exception as error:  # the hub's client raises a dozen kinds, all of which mean the same here
        raise KDError(
            f"{kind} '{name_or_path}' is neither a folder here nor to be had from the hub "
            f"({type(error).__name__}); check the name and the network, or give a local folder"
        ) from error
    hub.note(name_or_path, folder.name)
    return folder


def refuse_code(folder: Path) -> None:
    """Refuse a model that comes with code of its own; without it the weights may mean something else.

    Raises:
        KDError: it asks for its code to be run, or for an attention kernel of the hub, which is code too.
    """
    for name in ("config.json", "tokenizer_config.json"):
        try:
            content = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # what cannot be read is said by who reads it
        if asked := next(code_in(content), None):
            raise KDError(
                f"'{folder}' asks for code of its own to be run ({name}: {asked}), and kd never runs code that comes "
                "with a model (trust_remote_code is off); choose a model whose architecture transformers has"
            )


def code_in(content: Any) -> Iterator[str]:
    """The keys of a model's configuration, at any depth, that ask for code from elsewhere."""
    if isinstance(content, dict):
        for key, value in content.items():
            kernel = key.endswith("attn_implementation") and "/" in json.dumps(value)
            if kernel or (key == "auto_map" and value):
                yield key
            yield from code_in(value)


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
    tokenizer.chat_template = None  # classifiers have no use for one, and its names would become names of files
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
    refuse_code(folder)
    try:
        return kind.from_pretrained(folder, trust_remote_code=False, **options)
    except Exception as error:  # a damaged folder shows as any of a dozen kinds, from JSON to safetensors
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise KDError(f"cannot read the model in '{folder}' ({reason}); fetch or save it again") from error
