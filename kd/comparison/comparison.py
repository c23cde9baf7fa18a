"""A teacher, a student and rows, and what is measured of them; what is costly is computed when it is first read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kd.comparison import representation
from kd.comparison.answers import TEMPERATURES, Softness, softness
from kd.comparison.sides import MOST_ROWS, Outputs, Sample, Side


@dataclass(frozen=True)
class Comparison:
    """Two models, and the rows on which they are compared.

    Args:
        temperature: at which the student learns, if it is known.
        on_layers: whether the method has losses on layers, so that ``method.layers`` can be set.
    """

    teacher: Side
    student: Side
    sample: Sample
    temperature: float | None = None
    on_layers: bool = False

    @cached_property
    def training(self) -> tuple[Outputs, Outputs]:
        """Return the outputs of teacher and student on training rows."""
        return self.teacher.outputs(self.sample.texts[:MOST_ROWS]), self.student.outputs(self.sample.texts[:MOST_ROWS])

    @cached_property
    def held(self) -> tuple[Outputs, Outputs]:
        """Return the outputs of teacher and student on the held-out rows."""
        return self.teacher.outputs(self.sample.held_texts), self.student.outputs(self.sample.held_texts)

    @cached_property
    def correct(self) -> list[np.ndarray | None]:
        """Return for teacher and student which held-out rows they answer right; None for one that cannot answer."""
        can = (self.teacher.answers, self.student.trained)
        return [
            outputs.logits.argmax(axis=1) == self.sample.held_labels if known else None
            for outputs, known in zip(self.held, can, strict=True)
        ]

    @cached_property
    def probes(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return for each layer of teacher and student which held-out rows a linear probe of it has right."""
        labels = self.sample.labels[:MOST_ROWS]
        teacher, student = (
            [
                representation.probe(train, labels, held) == self.sample.held_labels
                for train, held in zip(training.layers, held.layers, strict=True)
            ]
            for training, held in zip(self.training, self.held, strict=True)
        )
        return teacher, student

    @cached_property
    def bag(self) -> np.ndarray:
        """Return which held-out rows a bag of the teacher's pieces has right."""
        pieces, held = (
            list(map(self.teacher.tokenizer.tokenize, texts)) for texts in (self.sample.texts, self.sample.held_texts)
        )
        return representation.bag_of_words(pieces, self.sample.labels, held) == self.sample.held_labels

    @cached_property
    def shares(self) -> list[np.ndarray]:
        """Return the share of variance by width, for each layer of the teacher."""
        layers = zip(self.training[0].layers, self.held[0].layers, strict=True)
        return [representation.shares_of_variance(*both) for both in layers]

    @cached_property
    def similarity(self) -> np.ndarray | None:
        """Return the CKA ``[student layers, teacher layers]``; None without layers on both sides."""
        teacher, student = (outputs.layers for outputs in self.held)
        return representation.similarity(teacher, student) if teacher and student else None

    @cached_property
    def width(self) -> int | None:
        """Return the width of the student's last layer."""
        return self.held[1].layers[-1].shape[1] if self.student.layers else None

    @cached_property
    def softness(self) -> list[Softness]:
        """Return what the teacher's answers to training rows say at each temperature."""
        return [softness(self.training[0].logits, temperature) for temperature in TEMPERATURES]
