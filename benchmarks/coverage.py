"""Simulate how often the report's 95 % interval covers a true difference; seeds and test rows are drawn anew.

    python benchmarks/coverage.py          # some minutes

Of two models the first is better by two points on average. On three rows of ten, one of the models has a lasting
advantage. Each seed shifts the difference by a normal variate, whose standard deviation is the first column.
"""

import argparse

import numpy as np
from scipy.special import ndtri

from kd.report.bootstrap import Bootstrap

ROWS, DIFFERENCE = 889, 0.02


def expected_difference(of_seed: np.ndarray, leaning: np.ndarray) -> np.ndarray:
    """Return ``[R, N]``, the expected value of (first right) - (second right)."""
    return np.clip(DIFFERENCE + leaning + of_seed[:, None], -0.95, 0.95)


def leanings(rows: int, generator: np.random.Generator) -> np.ndarray:
    """Draw the lasting advantage of the first model on each row."""
    return 0.45 * generator.normal(size=rows) * (generator.random(rows) < 0.3)


def truth(spread: float, generator: np.random.Generator) -> float:
    """Return the mean difference over all rows and seeds."""
    leaning, of_seed = leanings(100_000, generator), spread * ndtri((np.arange(100) + 0.5) / 100)
    return float(np.mean([expected_difference(one[None], leaning).mean() for one in of_seed]))


def study(seeds: int, spread: float, generator: np.random.Generator) -> np.ndarray:
    """Draw ``[2 R, N]`` bool: on which rows the first and the second model are right, with each seed."""
    leaning = leanings(ROWS, generator)
    expected = expected_difference(spread * generator.normal(size=seeds), leaning)
    apart = np.where(leaning != 0, np.maximum(np.abs(expected), 0.6), np.maximum(np.abs(expected), 0.02))
    drawn, both = generator.random(expected.shape), generator.random(expected.shape) < 0.7
    first = drawn < (apart + expected) / 2
    second = ~first & (drawn < apart)
    same = ~first & ~second & both
    return np.concatenate([first | same, second | same])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=400)
    options = parser.parse_args()
    print("seed sd  seeds  covered %  width, points")
    for spread in (0.0, 0.005, 0.01, 0.03):
        generator = np.random.default_rng(0)
        true = truth(spread, generator)
        for seeds in (1, 2, 3, 5, 10):
            covered, width = 0, 0.0
            for number in range(options.studies):
                resampled = Bootstrap(study(seeds, spread, generator), resamples=800, seed=number)
                low, high = resampled.differences(range(seeds), range(seeds, 2 * seeds)).interval()
                covered += low <= true <= high
                width += (high - low) / options.studies
            print(
                f"{100 * spread:7.1f} {seeds:6} {100 * covered / options.studies:10.1f} {100 * width:14.1f}", flush=True
            )


if __name__ == "__main__":
    main()
