"""How often the report's 95 % interval covers a true difference, by simulation: seeds and test rows both drawn anew.

    python benchmarks/coverage.py          # some minutes

Two models of which the first is better by two points in the mean; rows differ in how hard they are, and a third of
them leans lastingly to one of the two; each start has a luck of its own, with the given standard deviation in points.
"""

import argparse

import numpy as np
from scipy.special import ndtri

from kd.report.bootstrap import Bootstrap

ROWS, DIFFERENCE = 889, 0.02


def lean(luck: np.ndarray, leaning: np.ndarray) -> np.ndarray:
    """``[R, N]``, expected value of (first right) - (second right)."""
    return np.clip(DIFFERENCE + leaning + luck[:, None], -0.95, 0.95)


def leanings(rows: int, generator: np.random.Generator) -> np.ndarray:
    return 0.45 * generator.normal(size=rows) * (generator.random(rows) < 0.3)


def truth(spread: float, generator: np.random.Generator) -> float:
    """Mean difference over all rows and starts."""
    leaning, luck = leanings(100_000, generator), spread * ndtri((np.arange(100) + 0.5) / 100)
    return float(np.mean([lean(one[None], leaning).mean() for one in luck]))


def study(seeds: int, spread: float, generator: np.random.Generator) -> np.ndarray:
    """``[2 R, N]`` bool: which rows the first and the second model have right, with each seed."""
    leaning = leanings(ROWS, generator)
    expected = lean(spread * generator.normal(size=seeds), leaning)
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
    print("luck sd  seeds  covered %  width, points")
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
