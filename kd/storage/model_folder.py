"""Find, check and load models in the folder format of Hugging Face transformers."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from kd.errors import KDError
from kd.storage import hub
from kd.storage.checksum import file_sha256
from kd.storage.model_check import (
    check_labels,
    check_settings,
    check_tokenizer,
    check_weights,
    refusing,
    settings_in,
    within_its_files,
)
from kd.storage.products import require_whole_model

FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
OTHER_TASKS = ("multi_label_classification", "regression")
"""Values of ``problem_type`` for which transformers computes no softmax."""

FROM_PADDING = (
    *("camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke", "markuplm"),
    *("roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
)
"""Architectures that number positions from ``padding_idx + 1``, so that a text cannot use the first of them."""


def local_model(name_or_path: str, kind: str = "teacher") -> Path:
    """Return the folder of a model. A model on the hub is downloaded if necessary.

    Args:
        name_or_path: a folder, or a name on the hub; ``org/model@commit`` pins it to a commit.
        kind: the word for the model in the error message.

    Raises:
        KDError: neither a folder nor the hub has the model.
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
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=[*FILES]))
        if not any(folder.glob("*.safetensors")):  # then the older format, from the same commit
            patterns = [*FILES, "pytorch_model*.bin"]
            folder = Path(snapshot_download(name, revision=folder.name, allow_patterns=patterns))
    except Exception as error:  # the hub's client raises a dozen classes, all of which mean the same here
        raise KDError(
            f"{kind} '{name_or_path}' is neither a folder here nor a model on the hub that can be downloaded "
            f"({type(error).__name__}); check the name and the network, or give a local folder"
        ) from error
    hub.note(name_or_path, folder.name)
    return folder


def refuse_code(folder: Path) -> None:
    """Refuse a model that needs its own code; without that code, its weights may mean something else.

    Raises:
        KDError: the configuration names code of the model, or an attention kernel of the hub, which is code too; or
            a file cannot be read.
    """
    for name in ("config.json", "tokenizer_config.json"):
        if asked := next(code_in(settings_in(folder, name)), None):
            raise KDError(
                f"'{folder}' needs code of its own ({name}: {asked}), and kd never runs code that comes with a model "
                "(trust_remote_code is off); choose a model whose architecture is part of transformers"
            )


def code_in(content: Any) -> Iterator[str]:
    """Yield the keys of a model's configuration, at any depth, that name code outside transformers."""
    if isinstance(content, dict):
        for key, value in content.items():
            kernel = key.endswith("attn_implementation") and "/" in json.dumps(value)
            if kernel or (key == "auto_map" and value):
                yield key
            yield from code_in(value)


def folder_checksum(folder: Path) -> str:
    """Return the SHA-256 of the weights, the configuration and the tokenizer in a folder."""
    digest = hashlib.sha256()
    patterns = (*FILES, "pytorch_model*.bin")
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern)}):
        digest.update(path.name.encode() + bytes.fromhex(file_sha256(path)))
    return digest.hexdigest()


def load_config(folder: Path) -> PretrainedConfig:
    """Load a model's configuration, without running any code of the model.

    Raises:
        KDError: the files cannot be read, or a number in them is impossible.
    """
    check_settings(folder, settings_in(folder, "config.json"))
    config = _read(AutoConfig, folder)
    # What a model returns is kd's choice, whatever the folder asks for.
    config.return_dict, config.output_hidden_states, config.output_attentions = True, False, False
    return config


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer, set to truncate and pad on the right.

    Raises:
        KDError: the files cannot be read, there is no vocabulary or no padding token, or the tokenizer does not belong
            to the model in the folder.
    """
    config = load_config(folder) if (folder / "config.json").is_file() else None
    tokenizer = _read(AutoTokenizer, folder)
    tokenizer.truncation_side = tokenizer.padding_side = "right"
    tokenizer.chat_template = None  # a classifier needs none, and saving would use its names as file names
    check_tokenizer(folder, tokenizer, config)
    if math.isfinite(tokenizer.model_max_length):
        tokenizer.model_max_length = int(tokenizer.model_max_length)
    return tokenizer


def load_word_table(folder: Path) -> torch.Tensor:
    """Return the word embeddings ``[V, d]`` of the model in a folder.

    Raises:
        KDError: as for `load_classifier`.
    """
    return load_classifier(folder, new_head=True).get_input_embeddings().get_parameter("weight").detach().clone()


def load_classifier(
    folder: Path,
    new_head: bool = False,
    config: PretrainedConfig | None = None,
    label_names: Sequence[str] | None = None,
) -> PreTrainedModel:
    """Load a classifier in float32 and evaluation mode.

    Args:
        folder: contains weights and configuration.
        new_head: if the classification head is missing or has another size, initialise it randomly.
        config: replaces the one in the folder.
        label_names: replace the labels in the configuration.

    Raises:
        KDError: the files cannot be read or contradict each other, a weight is not finite, or ``new_head`` is false and
            there is no trained head.
    """
    require_whole_model(folder)
    content = settings_in(folder, "config.json")
    check_settings(folder, content)
    if not new_head:
        check_labels(folder, content)
    given, config = config, config or load_config(folder)
    if label_names is not None:
        set_labels(config, label_names)
    options = {"dtype": torch.float32, "ignore_mismatched_sizes": new_head, "output_loading_info": True}
    with within_its_files(folder):
        model, info = _read(AutoModelForSequenceClassification, folder, config=config, **options)
    check_weights(folder, model, info, new_head)
    if given is None and hasattr(model, "score"):  # a decoder: it classifies the last token that is no padding
        model.config.pad_token_id = load_tokenizer(folder).pad_token_id
    return model.eval()


def load_generator(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model in float32, and its tokenizer.

    Raises:
        KDError: the files cannot be read or contradict each other, a weight is not finite, or the model does not
            predict the next token.
    """
    require_whole_model(folder)
    config, tokenizer = load_config(folder), _read(AutoTokenizer, folder)
    options = {"dtype": torch.float32, "output_loading_info": True}
    if causal := getattr(config, "is_decoder", True):  # an encoder such as BERT says False
        with within_its_files(folder):
            model, info = _read(AutoModelForCausalLM, folder, config=config, **options)
    if not causal or info["missing_keys"] or tokenizer.eos_token_id is None:
        raise KDError(
            f"expected a causal language model in '{folder}', with a token for the end of a text, found another kind "
            f"({config.model_type}); give one such as asset:smollm2"
        )
    check_weights(folder, model, info, new_head=False)
    return model, tokenizer


def require_one_label(name: str, config: PretrainedConfig) -> None:
    """Refuse a classifier whose logits are not meant for one label a text, which kd computes by a softmax.

    Raises:
        KDError: the classifier is for several labels a text, or for a number.
    """
    if config.problem_type in OTHER_TASKS or config.num_labels == 1:
        kind = config.problem_type or "num_labels=1"
        raise KDError(
            f"expected a classifier of one label a text, found '{name}' with {kind}, whose outputs are no "
            "probabilities of a softmax; choose another, or fine-tune it on your labels (teacher.fine_tune=true)"
        )


def longest_text(config: PretrainedConfig) -> int | None:
    """Return the largest number of tokens that a model has positions for; None if there is no limit."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or positions < 0:  # XLNet has -1
        return None
    if config.model_type == "mpnet":  # it numbers positions from 2, whatever its padding token
        return positions - 2
    return positions - ((config.pad_token_id or 0) + 1 if config.model_type in FROM_PADDING else 0)


def require_length(name: str, config: PretrainedConfig, max_length: int, option: str) -> None:
    """Refuse a maximal length that a model has no positions for; ``option`` is its key in the configuration.

    Raises:
        KDError: the length is too large. The message gives the largest possible one.
    """
    longest = longest_text(config)
    if longest is not None and max_length > longest:
        raise KDError(
            f"{option}: '{name}' reads at most {longest} tokens, got {max_length}; set {option}={longest} or less"
        )


def _read(kind: Any, folder: Path, **options: Any) -> Any:
    refuse_code(folder)
    with refusing(folder):
        return kind.from_pretrained(folder, trust_remote_code=False, **options)


def set_labels(config: PretrainedConfig, label_names: Sequence[str]) -> None:
    """Name the labels of a classifier of one label a text.

    A model that had another task would keep its ``problem_type``, and transformers would compute no softmax.
    """
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: number for number, name in enumerate(label_names)}
    if config.problem_type in OTHER_TASKS:
        config.problem_type = None
