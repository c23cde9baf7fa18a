"""Refuse a model folder that contradicts itself: its settings, its weights, its tokenizer, or two of them together."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch.nn.modules.module import register_module_parameter_registration_hook
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from kd.errors import KDError

LARGEST, MOST_LAYERS, MOST_LABELS = 2**31 - 1, 100_000, 1_000_000
RANGES = {
    **dict.fromkeys(("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads"), (1, LARGEST)),
    **{"max_position_embeddings": (1, LARGEST), "num_hidden_layers": (0, MOST_LAYERS), "num_labels": (1, MOST_LABELS)},
}
"""The smallest and the largest possible number for the keys of a config.json that most architectures have.

transformers makes lists of all layers and all labels before it reads any weights. These must end.
"""
SPARE_TENSORS, SPARE_NUMBERS = 1_000, 50_000_000
"""What a model may have beyond the weights in its files, such as a new head."""
SAMPLES = ["A film, it's 1 of 10: naïve/ÜBER «cool» 数据 👍🏽\tEnd." + " words" * 8 + "a" * 40, "a"]
"""Texts that every tokenizer must be able to encode: letters, digits, marks, spaces, and characters beyond ASCII."""
PAIR = ["A film.", "a"]
"""Two texts that every model must be able to classify. They are short, because this takes time at each loading."""


class UnusableModel(KDError):
    """A model folder that cannot be used; the reason says what was expected and what was found."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(f"cannot read the model in '{folder}' ({reason}); download or save it again")


@contextmanager
def refusing(folder: Path) -> Iterator[None]:
    """Turn whatever a damaged folder raises into a `KDError` of one sentence.

    The library `tokenizers` is written in Rust. Its panics are no subclass of `Exception`.
    """
    try:
        yield
    except UnusableModel:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnusableModel(folder, reason if len(reason) <= 300 else f"{reason[:300]} ...") from error


def settings_in(folder: Path, name: str) -> dict[str, Any]:
    """Return the content of a JSON file of a model; empty if there is no such file.

    Raises:
        KDError: the file is no JSON, or holds no keys with values.
    """
    path = folder / name
    if not path.is_file():
        return {}
    with refusing(folder):
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise UnusableModel(folder, f"{name}: expected keys with values, found {_shown(content)}")
    return content


def check_settings(folder: Path, content: Mapping[str, Any]) -> None:
    """Refuse a config.json whose numbers are no counts, or would keep transformers busy without end.

    Raises:
        KDError: names the key and the value.
    """
    for key, value in content.items():
        if value is None or not (key in RANGES or re.search("(^|_)layers?$", key)):
            continue
        least, most = RANGES.get(key, (-LARGEST, MOST_LAYERS))
        if (type(value) is int and not least <= value <= most) or (key in RANGES and type(value) is not int):
            expected = f"a whole number from {least} to {most}"
            raise UnusableModel(folder, f"config.json: expected {expected} as {key}, found {_shown(value)}")
    names = content.get("id2label")
    if names is not None and (not names or not isinstance(names, dict)):
        raise UnusableModel(folder, f"config.json: expected a name for each label in id2label, found {_shown(names)}")


def check_labels(folder: Path, content: Mapping[str, Any]) -> None:
    """Refuse names of labels in a config.json that do not name each output of a classifier once.

    Raises:
        KDError: says which numbers or names were expected.
    """
    names = content.get("id2label")
    if names is None:
        return
    if not all(isinstance(name, str) for name in names.values()):
        raise UnusableModel(folder, f"config.json: expected a name for each label in id2label, found {_shown(names)}")
    if sorted(names, key=lambda key: (len(key), key)) != [str(number) for number in range(len(names))]:
        expected = f"the numbers 0 to {len(names) - 1} in id2label"
        raise UnusableModel(folder, f"config.json: expected {expected}, found {_shown(list(names))}")
    if repeated := sorted(name for name in set(names.values()) if list(names.values()).count(name) > 1):
        raise UnusableModel(folder, f"config.json: expected different names in id2label, found '{repeated[0]}' twice")
    if content.get("num_labels") not in (None, len(names)):
        found = f"{len(names)} with num_labels={content['num_labels']}"
        raise UnusableModel(folder, f"config.json: expected as many names in id2label as labels, found {found}")
    numbers = content.get("label2id")
    other = {name: str(number) for name, number in numbers.items()} if isinstance(numbers, dict) else numbers
    defaults = {f"LABEL_{key}": key for key in names}  # what a writer of id2label alone leaves
    if other not in (None, {}, defaults, {name: key for key, name in names.items()}):
        reason = f"expected the names of id2label in label2id, found {_shown(numbers)} beside {_shown(names)}"
        raise UnusableModel(folder, f"config.json: {reason}")


@contextmanager
def within_its_files(folder: Path) -> Iterator[None]:
    """Refuse to build a model that is far larger than the weights in its folder.

    The model is built before its weights are read. Without this, 10^7 layers would be built without an end.

    Raises:
        KDError: while the model is built.
    """
    files = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
    tensors, size = sum(map(_tensors_in, files)), sum(file.stat().st_size for file in files)
    count, numbers = 0, 0

    def counted(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter | None) -> None:
        nonlocal count, numbers
        if parameter is None or not parameter.is_meta:  # one that is read from the file replaces one that was built
            return
        count, numbers = count + 1, numbers + parameter.numel()
        # A file may hold the parameters of a layer in fewer tensors, and two numbers in a byte.
        if count > 4 * tensors + SPARE_TENSORS or numbers > 2 * size + SPARE_NUMBERS:
            found = f"{tensors} tensors in {size:,} bytes"
            reason = f"config.json: expected the sizes of the weights, found a far larger model than {found}"
            raise UnusableModel(folder, reason)

    hook = register_module_parameter_registration_hook(counted)
    try:
        yield
    finally:
        hook.remove()


def _tensors_in(file: Path) -> int:
    """Return the number of tensors in a file of weights; 0 for one that cannot be read, which is refused later."""
    with suppress(OSError, SafetensorError, zipfile.BadZipFile):
        if file.suffix == ".safetensors":
            with safe_open(file, "pt") as opened:
                return len(opened.keys())
        with zipfile.ZipFile(file) as archive:
            return len(archive.namelist())
    return 0


def check_weights(folder: Path, model: PreTrainedModel, info: Mapping[str, Any], new_head: bool) -> None:
    """Refuse a loaded model whose weights are not those that its configuration describes, or are not finite.

    Args:
        folder: of the model.
        model: as it was loaded.
        info: what ``from_pretrained`` returns with ``output_loading_info``.
        new_head: whether the head may be new; only the head and a pooler may.

    Raises:
        KDError: names the first tensor.
    """
    missing, other = sorted(info["missing_keys"]), sorted(info["mismatched_keys"])
    if missing and not new_head:
        raise KDError(
            f"expected a trained classifier in '{folder}', found no weights for {', '.join(missing[:3])}; "
            "fine-tune it first (teacher.fine_tune=true)"
        )
    for name, stored, built in other:
        unused = name.endswith(".weight") and tuple(built)[:1] == (1,) == (rows_of(model.config),)  # in a composition
        if not unused and not _in_head(model, name):
            sizes = " x ".join(map(str, built)), " x ".join(map(str, stored))
            raise UnusableModel(folder, f"expected {sizes[0]} numbers in {name} by config.json, found {sizes[1]}")
    for name in missing:
        if re.search(r"\.\d+\.", name) and not _in_head(model, name):
            raise UnusableModel(folder, f"expected weights for {name} by config.json, found none")
    lists = {name for name, part in model.named_modules() if isinstance(part, torch.nn.ModuleList)}
    for name in sorted(info["unexpected_keys"]):
        if re.split(r"\.\d+\.", name)[0] in lists:
            raise UnusableModel(folder, f"expected the layers that config.json counts, found one more: {name}")
    for name, values in model.state_dict().items():
        if values.is_floating_point() and not values.is_meta and (count := _not_finite(values)):
            found = f"{count} of {values.numel()} that are not (NaN or infinite)"
            raise UnusableModel(folder, f"expected finite numbers in {name}, found {found}")


def _in_head(model: PreTrainedModel, name: str) -> bool:
    """Return whether a parameter lies outside the encoder; a pooler counts as outside."""
    if model.base_model is model:  # kd's own students
        return model.state_dict()[name].shape[:1] == (model.config.num_labels,)
    return not name.startswith(f"{model.base_model_prefix}.") or "pooler" in name


def _not_finite(values: torch.Tensor) -> int:
    """Return how many values are not finite."""
    if not values.numel() or all(bound.isfinite() for bound in values.aminmax()):  # faster than a look at each
        return 0
    return int((~values.isfinite()).sum())


def check_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig | None) -> None:
    """Refuse a tokenizer without a vocabulary or a padding token, with impossible lengths, or of another model.

    Args:
        folder: of the tokenizer.
        tokenizer: as it was loaded.
        config: of the model in the same folder; None if there is none.

    Raises:
        KDError: says what is wrong with it.
    """
    vocabulary = tokenizer.get_vocab()
    if not vocabulary.keys() - {str(token) for token in tokenizer.added_tokens_decoder.values()}:
        raise KDError(
            f"expected a tokenizer in '{folder}', found no vocabulary, so that every word would be unknown; save the "
            "model's own tokenizer there (tokenizer.save_pretrained)"
        )
    if tokenizer.pad_token_id is None:
        raise KDError(
            f"expected a padding token in the tokenizer of '{folder}', found none, and batches need one; choose an "
            "encoder such as BERT, RoBERTa or DeBERTa, or set tokenizer.pad_token and save the tokenizer again"
        )
    length, special = tokenizer.model_max_length, tokenizer.num_special_tokens_to_add()
    if type(length) not in (int, float) or not length > special:
        reason = f"tokenizer_config.json: expected more than {special} as model_max_length, found {_shown(length)}"
        raise UnusableModel(folder, reason)
    rows = None if config is None else rows_of(config)
    ids = [*vocabulary.values(), *encoded_samples(folder, tokenizer)]
    if rows is not None and not 0 <= min(ids) <= max(ids) < rows:
        raise KDError(
            f"expected a tokenizer for the {rows} rows of the word table in '{folder}', found the token id "
            f"{max(ids)}; save the model's own tokenizer there, or give the table more rows (resize_token_embeddings)"
        )


def rows_of(config: PretrainedConfig) -> int | None:
    """Return the rows of a model's word table; None if its configuration does not say it."""
    encoder = getattr(config, "encoder", None)
    rows = encoder.get("vocab_size") if isinstance(encoder, dict) else getattr(config, "vocab_size", None)
    return rows if type(rows) is int else None


@contextmanager
def unchanged(tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """Restore what each call of a tokenizer changes: its padding and truncation, which are saved with it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    padding, truncation = (None, None) if backend is None else (backend.padding, backend.truncation)
    try:
        yield
    finally:
        if backend is not None:
            backend.enable_padding(**padding) if padding else backend.no_padding()
            backend.enable_truncation(**truncation) if truncation else backend.no_truncation()


def encoded_samples(folder: Path, tokenizer: PreTrainedTokenizerBase) -> Iterable[int]:
    """Return the ids of some texts. Some mistakes in a tokenizer.json show only when a text is encoded.

    Raises:
        KDError: a text cannot be encoded.
    """
    with refusing(folder), unchanged(tokenizer):
        return [number for row in tokenizer(SAMPLES)["input_ids"] for number in row]


@torch.inference_mode()
def check_pair(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    """Refuse a model that cannot classify a batch of two short texts.

    Raises:
        KDError: the model raises an error, or gives logits of another size or logits that are not finite.
    """
    if max_length <= (special := tokenizer.num_special_tokens_to_add()):
        raise UnusableModel(
            folder, f"expected room for more than {special} special tokens, found {max_length} positions"
        )
    with refusing(folder), unchanged(tokenizer):
        batch = tokenizer(PAIR, truncation=True, max_length=max_length, padding=True, return_tensors="pt")
        inputs = {name: batch[name].to(model.device) for name in ("input_ids", "attention_mask")}
        logits = model(**inputs).logits
    if logits.shape != (len(PAIR), model.config.num_labels) or not logits.isfinite().all():
        expected = f"{len(PAIR)} x {model.config.num_labels} finite logits for {len(PAIR)} texts"
        raise UnusableModel(folder, f"expected {expected}, found {_shown(logits.tolist())}")


def _shown(value: Any) -> str:
    """Return a value as text of one line and at most 60 characters."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # a whole number of more digits than Python writes
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:60]} ..."
