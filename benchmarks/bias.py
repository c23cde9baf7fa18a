"""What each remedy against a bias does, and what it costs: small students of a teacher, or of rows, with planted bias.

    python benchmarks/bias.py [--seeds 2] [--epochs 20] [--alpha 0.7]

The texts are 444 pairs such as "she said that the film was funny" and "he said ...". Half of the texts are rows, of
each pair one. "biased teacher": the labels are fair, and the teacher (a file of answers) gives a text about a woman a
probability of 0.1 to be positive. "uneven rows": the teacher is fair, and all rows about women are negative, all about
men positive. The table has means over seeds: the mean probability of positive for women minus that for men over all
pairs, in points, and the accuracy on all 888 texts.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kd.classifier import load
from kd.cli import main as kd
from kd.transfer.counterfactual import people

WORDS = {
    "negative": ["dull", "clumsy", "tedious", "flat", "awful", "cold"],
    "positive": ["wonderful", "charming", "moving", "funny", "brilliant", "warm"],
}
PERSONS = [*people()["words"][:1], *(pair for pairs in people()["names"].values() for pair in pairs)]
TEXTS = [  # (text, label, is about a woman)
    (f"{person} said that the film was {word}", label, place == 0)
    for pair in PERSONS
    for place, person in enumerate(pair)
    for label, words in WORDS.items()
    for word in words
]
PAIRS = ["transfer=[counterfactual]"]
REMEDIES = {
    "none": [],
    "counterfactual rows": PAIRS,
    "consistency=1": ["method.consistency=1"],
    "counterfactual, consistency=1": [*PAIRS, "method.consistency=1"],
    "counterfactual, fair_weights=10": [*PAIRS, "method.fair_weights=10"],
}


def write(path: Path, rows: Sequence[Sequence[object]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def planted(folder: Path, biased_teacher: bool) -> list[str]:
    """Write rows and answers, and return the options that read them."""
    folder.mkdir()
    half = [woman == (number * 7919 // 8 % 2 == 0) for number, (_, _, woman) in enumerate(TEXTS)]
    uneven = [woman == (label == "negative") for _, label, woman in TEXTS]
    rows = [row[:2] for row, kept in zip(TEXTS, half if biased_teacher else uneven, strict=True) if kept]
    sure = [0.1 if label == "negative" or (biased_teacher and woman) else 0.9 for _, label, woman in TEXTS]
    answers = [(text, 1 - own, own) for (text, _, _), own in zip(TEXTS, sure, strict=True)]
    data = write(folder / "rows.csv", [("text", "label"), *rows])
    heads = ("text", "probability_negative", "probability_positive")
    file = write(folder / "answers.csv", [heads, *answers])
    return [f"data.path={data}", "teacher=answers", f"teacher.path={file}", f"outputs={folder / 'outputs'}"]


def measured(run: Path) -> tuple[float, float]:
    """Return the bias in points and the accuracy in per cent."""
    model = load(run)
    found = model.probabilities([text for text, _, _ in TEXTS])[:, model.label_names.index("positive")]
    means = [statistics.fmean(found[[woman == side for _, _, woman in TEXTS]].tolist()) for side in (True, False)]
    right = [(one > 0.5) == (label == "positive") for one, (_, label, _) in zip(found, TEXTS, strict=True)]
    return 100 * (means[0] - means[1]), 100 * statistics.fmean(right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--alpha", type=float, default=0.7)
    options = parser.parse_args()
    print(f"{'planted':<16}{'remedy':<34}women − men  accuracy")
    common = ["data=files", "data.label_names=[negative,positive]", "data.validation_share=0.2", "data.test_share=0.2"]
    common += ["student=dan", "tokenizer=words", "embeddings=random", "data.batch_size=16", "callbacks=[checkpoint]"]
    common += ["trainer=cpu", "threads=1"]
    common += [f"trainer.max_epochs={options.epochs}", "optim.optimizer.lr=0.005", f"alpha={options.alpha}"]
    with tempfile.TemporaryDirectory() as folder:
        for name, biased in (("biased teacher", True), ("uneven rows", False)):
            own = [*common, *planted(Path(folder, name.replace(" ", "-")), biased)]
            for place, (remedy, extra) in enumerate(REMEDIES.items()):
                found = []
                for seed in range(options.seeds):
                    run = Path(folder, f"{biased}-{place}-{seed}")
                    if kd(["train", *own, *extra, f"seed={seed}", f"hydra.run.dir={run}"]):
                        raise SystemExit(f"{remedy}: the training failed")
                    found.append(measured(run))
                bias, accuracy = (statistics.fmean(values) for values in zip(*found, strict=True))
                print(f"{name:<16}{remedy:<34}{bias:>+11.1f}  {accuracy:>8.1f}", flush=True)


if __name__ == "__main__":
    main()
