"""Where the time of one text goes in an export: the tokenizer of Hugging Face, kd's word by word, and the model.

    python benchmarks/tokenizing.py RUN...

Each run needs `exports/onnx`. The words of the training rows are known, as in a server that has run for a while. Then
each validation row is read once: by the library alone (`tokenizers`), word by word (`kd.data.words`), and by the model.
The three take turns with each text, so that noise hits all alike. Medians in microseconds, one thread. `text`: from the
text to the logits, with either tokenizer.
"""

from __future__ import annotations

import os
import sys
import time

import numpy as np
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from kd.config.check import rows_of_run
from kd.export import classifier, folder
from kd.export.classifier import padded
from kd.run.directory import RunDirectory


def main() -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("run")
    for name in ("library", "word by word", "model", "text before", "text after", "times as fast"):
        table.add_column(name, justify="right")
    for place in sys.argv[1:] or sys.exit(__doc__):
        run = RunDirectory.finished(place)
        export = run.path / "exports" / "onnx"
        student = classifier.load(export, threads=1)
        library = Tokenizer.from_file(str(export / folder.TOKENIZER))
        library.enable_truncation(student.max_length)
        library.no_padding()
        splits = rows_of_run(run)
        for text in splits.train["text"]:
            student.token_ids([text])
        library_us, words_us, model_us = np.median(
            [times(student, library, text) for text in splits.validation["text"]], axis=0
        )
        before, after = library_us + model_us, words_us + model_us
        figures = (library_us, words_us, model_us, before, after)
        table.add_row(run.path.name, *(f"{each:.0f}" for each in figures), f"{before / after:.2f}")
    Console().print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")
    Console().print(table)


def times(student: classifier.Exported, library: Tokenizer, text: str) -> list[float]:
    """Return the microseconds of the library, of kd's tokenizer and of the model."""
    moments = [time.perf_counter()]
    expected = library.encode_batch_fast([text])[0].ids
    moments.append(time.perf_counter())
    (ids,) = student.token_ids([text])
    moments.append(time.perf_counter())
    student.run(*padded([ids], student.about["padding"]))
    moments.append(time.perf_counter())
    assert ids == expected, text
    return (1e6 * np.diff(moments)).tolist()


if __name__ == "__main__":
    main()
