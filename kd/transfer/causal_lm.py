"""Sample new texts from a causal language model that is fine-tuned on the training rows, each after its label."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

import torch
from annotated_types import Gt, Le
from rich.progress import track
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase, get_scheduler

from kd.contract import IGNORED_LABEL
from kd.options.declared import Count, CountOrNone, Positive, Temperature
from kd.storage.assets import resolve
from kd.storage.model_folder import load_generator, local_model
from kd.transfer.base import LabelledTexts, Step, randomness
from kd.transfer.style import Style

log = logging.getLogger(__name__)

TEXTS_AT_ONCE = 64
"""Texts sampled together. They are one part, of one class, so that all begin with the same tokens."""
LONGEST_ROW = 128
"""Tokens after which a training row is truncated."""

Generator = tuple[Any, PreTrainedTokenizerBase]


@dataclass
class CausalLm(Step):
    """Texts sampled from a causal language model, the same number for each class.

    The model is fine-tuned on ``label: text`` for all training rows, and continues ``label:``. A text that has not
    ended after ``tokens`` tokens is left out. Sampling is resumed part by part; the fine-tuning, which comes first, is
    then repeated.

    Args:
        path: the model: a folder, a name on the hub, or ``asset:NAME``.
        texts: number of texts to sample, rounded up to batches of 64. A larger one keeps those that are there.
        steps: optimizer steps of the fine-tuning; 0 takes the model as it is.
        batch_size: rows of a step.
        learning_rate: the first one; it falls to 0 in even steps.
        temperature: divides the logits. A lower one makes texts more probable and more alike.
        top_p: sample among the most probable tokens that have this probability together.
        tokens: largest number of tokens of a text.
    """

    selecting = (*Step.selecting, "texts")
    reads_names = True

    path: str
    texts: Count = 1000
    steps: CountOrNone = 60
    batch_size: Count = 16
    learning_rate: Positive = 1e-4
    temperature: Temperature = 1.0
    top_p: Annotated[float, Gt(0), Le(1)] = 0.95
    tokens: Count = 64

    def parts(self, train: LabelledTexts, seed: int) -> Iterator[Iterable[str]]:
        style = Style.of(train.texts)
        generator = cache(lambda: self.fine_tuned(train, seed))  # not needed if all parts are there
        for number in range(math.ceil(self.texts / TEXTS_AT_ONCE)):
            yield (style.apply(text) for text in self.sampled(generator, train, seed, number))

    def fine_tuned(self, train: LabelledTexts, seed: int) -> Generator:
        """Load the model, and train it on the training rows."""
        loaded: Generator = load_generator(local_model(resolve(self.path), "generator"))
        model, tokenizer = loaded
        model.to("cuda" if torch.cuda.is_available() else "cpu").train()
        rows = []
        for text, label in zip(train.texts, train.labels, strict=True):
            start, rest = prompt(tokenizer, train.names[label]), tokenizer.encode(f" {text}", add_special_tokens=False)
            rows.append((start, [*rest[:LONGEST_ROW], tokenizer.eos_token_id]))
        numbers, started, losses, count = randomness(seed, "causal_lm"), time.perf_counter(), [], 0
        optimizer = torch.optim.AdamW(model.parameters(), self.learning_rate)
        schedule = get_scheduler("linear", optimizer, 0, self.steps)
        with torch.random.fork_rng():
            torch.manual_seed(seed)  # dropout
            for _ in track(range(self.steps), description="fine-tuning the generator"):
                chosen = numbers.sample(rows, min(self.batch_size, len(rows)))
                ids = padded([start + rest for start, rest in chosen], 0).to(model.device)
                targets = padded([[IGNORED_LABEL] * len(start) + rest for start, rest in chosen], IGNORED_LABEL)
                mask = padded([[1] * len(start + rest) for start, rest in chosen], 0).to(model.device)
                loss = model(input_ids=ids, attention_mask=mask, labels=targets.to(model.device)).loss
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                losses.append(loss.item())
                count += int(mask.sum())
        if losses:
            seconds = time.perf_counter() - started
            ends = losses[0], sum(losses[-10:]) / len(losses[-10:])
            log.info(
                "generator: %d steps in %.0f s, %.0f tokens a second; the loss a token went from %.2f to %.2f",
                *(self.steps, seconds, count / seconds, *ends),
            )
        return model.eval(), tokenizer

    def sampled(
        self, generator: Callable[[], Generator], train: LabelledTexts, seed: int, number: int
    ) -> Iterator[str]:
        """Sample the texts of a part."""
        model, tokenizer = generator()
        started, end = time.perf_counter(), tokenizer.eos_token_id
        classes = sorted(set(train.labels))
        start = prompt(tokenizer, train.names[classes[number % len(classes)]])
        ids = torch.tensor([start] * TEXTS_AT_ONCE, device=model.device)
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(randomness(seed, "causal_lm", number).getrandbits(63))
            sampling = {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": 0}
            found = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=self.tokens,
                **sampling,
                eos_token_id=end,
                pad_token_id=end,
            )[:, len(start) :].tolist()
        whole = [row[: row.index(end)] for row in found if end in row]
        seconds, count = time.perf_counter() - started, sum(map(len, whole))
        log.info(
            "generator: part %d: %d of %d texts have ended, %.0f tokens a second",
            *(number, len(whole), len(found), count / seconds),
        )
        yield from (" ".join(str(tokenizer.decode(row, skip_special_tokens=True)).split()) for row in whole)


def prompt(tokenizer: PreTrainedTokenizerBase, label: str) -> list[int]:
    """Return the tokens that a text of this label follows."""
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    return [*start, *tokenizer.encode(f"{label}:", add_special_tokens=False)]


def padded(rows: list[list[int]], value: int) -> torch.Tensor:
    """Return rows of different lengths as ``[B, L]``, padded on the right."""
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)
