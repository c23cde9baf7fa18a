"""Give the batches of the training and validation splits to Lightning, for every method."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import lightning
import torch
from torch.utils.data import DataLoader, Sampler
from transformers import PreTrainedTokenizerBase

from kd.data.batching import EncodedSplit
from kd.data.streaming import StreamedSplit
from kd.data.unknown import unknown_pieces
from kd.errors import KDError

log = logging.getLogger(__name__)


class TextDataModule(lightning.LightningDataModule):
    """The batches of tokenised splits, in which rows of similar length are padded to the longest row.

    The samplers divide the rows among the ranks themselves, so the Trainer needs ``use_distributed_sampler=False``.

    Args:
        train, validation: tokenised splits.
        batch_size: rows in a training batch of one rank.
        seed: of the order of the batches.
        evaluation_batch_size: rows in a validation batch of one rank.
        texts: the training texts. A warning is logged if much of them is unknown to one of the tokenizers.
        tokenizers: by whose they are, such as "the student's".
    """

    def __init__(
        self,
        train: EncodedSplit | StreamedSplit,
        validation: EncodedSplit,
        batch_size: int,
        seed: int = 0,
        evaluation_batch_size: int = 256,
        texts: Sequence[str] = (),
        tokenizers: Mapping[str, PreTrainedTokenizerBase] | None = None,
    ):
        super().__init__()
        self.train, self.validation = train, validation
        self.batch_size, self.seed = batch_size, seed
        self.evaluation_batch_size = evaluation_batch_size
        self.texts, self.tokenizers = texts, tokenizers or {}

    def setup(self, stage: str) -> None:
        """Log a warning for each tokenizer that does not know the training texts."""
        if self._ranks()[0] == 0:
            for whose, tokenizer in self.tokenizers.items():
                if warning := unknown_pieces(tokenizer, self.texts).warning(whose):
                    log.warning("data: %s", warning)

    def train_sampler(self, rank: int = 0, world_size: int = 1) -> Sampler:
        """Return the sampler of the training batches for one rank."""
        return self.train.sampler(self.batch_size, True, self.seed, rank, world_size)

    def padding_share(self) -> float:
        """Return the share of padding among the training tokens."""
        return self.train.padding_share(self.batch_size, self.seed)

    def require_rows(self, devices: int) -> None:
        """Refuse more devices than there are rows, because some would have no row.

        Raises:
            KDError: a split has fewer rows than there are devices.
        """
        for name, split in (("training", self.train), ("validation", self.validation)):
            if len(split) < devices:
                raise KDError(
                    f"expected a {name} row for each of the {devices} devices, found {len(split)} rows; set a smaller "
                    "trainer.devices or add rows"
                )

    def train_dataloader(self) -> DataLoader:
        return self._loader(self.train, self.train_sampler(*self._ranks()))

    def val_dataloader(self) -> DataLoader:
        rank, world_size = self._ranks()
        sampler = self.validation.sampler(self.evaluation_batch_size, rank=rank, world_size=world_size)
        return self._loader(self.validation, sampler)

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(self, split: EncodedSplit | StreamedSplit, sampler: Sampler) -> DataLoader:
        # batch_size=None: the split makes a batch in one call, instead of one call for each row.
        # A generator of its own: the loader draws a seed at each epoch, which would change dropout in a resumed run.
        # No worker processes: they would request batches before Lightning has set the sampler's epoch on resuming.
        generator = torch.Generator().manual_seed(self.seed)
        return DataLoader(split, sampler=sampler, batch_size=None, generator=generator)
