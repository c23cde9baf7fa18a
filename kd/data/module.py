"""The one DataModule that every method shares."""

from __future__ import annotations

import lightning
import torch
from torch.utils.data import DataLoader, Sampler

from kd.data.batching import EncodedSplit
from kd.data.streaming import StreamedSplit
from kd.errors import KDError


class TextDataModule(lightning.LightningDataModule):
    """Length-bucketed, dynamically padded batches of encoded splits.

    The samplers split the rows over the ranks themselves: the Trainer must be built with
    ``use_distributed_sampler=False``.

    Args:
        train, validation: encoded splits.
        batch_size: training rows a batch and rank.
        seed: of the order of the batches.
        evaluation_batch_size: rows a batch and rank where nothing is learnt.
    """

    def __init__(
        self,
        train: EncodedSplit | StreamedSplit,
        validation: EncodedSplit,
        batch_size: int,
        seed: int = 0,
        evaluation_batch_size: int = 256,
    ):
        super().__init__()
        self.train, self.validation = train, validation
        self.batch_size, self.seed = batch_size, seed
        self.evaluation_batch_size = evaluation_batch_size

    def train_sampler(self, rank: int = 0, world_size: int = 1) -> Sampler:
        """The order of the training batches for one rank."""
        return self.train.sampler(self.batch_size, True, self.seed, rank, world_size)

    def padding_share(self) -> float:
        """The share of padding among the training tokens."""
        return self.train.padding_share(self.train_sampler())

    def require_rows(self, devices: int) -> None:
        """Refuse more devices than there are rows: some would have none.

        Raises:
            KDError: so it is.
        """
        for name, split in (("training", self.train), ("validation", self.validation)):
            if len(split) < devices:
                raise KDError(
                    f"expected a {name} row for each of the {devices} devices, found {len(split)} rows; lower "
                    "trainer.devices or give more rows"
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
        # The split batches by itself: one call a batch instead of one a row. A generator of its own, because
        # the loader draws a seed when an epoch begins, which would shift dropout in a resumed run. No worker
        # processes, which ask for batches before Lightning has told the sampler of the epoch that is resumed.
        generator = torch.Generator().manual_seed(self.seed)
        return DataLoader(split, sampler=sampler, batch_size=None, generator=generator)
