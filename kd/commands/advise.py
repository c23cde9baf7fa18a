"""``kd advise``: what to try for given data, teacher and limits, and what each costs on this machine."""

from __future__ import annotations

import argparse
import logging
import sys

from kd.advice.plan import add_options, fitted, limits_of, make_plan, show


def main(arguments: list[str]) -> int:
    """Print the shortlist with its reasons."""
    parser = argparse.ArgumentParser(
        prog="kd advise",
        description="Choose what to try by rules, and measure its size and speed on this machine. Trains nothing; "
        "kd auto trains what this prints.",
    )
    add_options(parser)
    parser.add_argument("--budget", help="time of all trainings, such as 30min: what does not fit is left out")
    options = parser.parse_intermixed_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="kd advise: %(message)s")
    limits = limits_of(options.at_most, options.budget, not options.no_labels)
    plan = make_plan(options.words, options.at_most, limits)
    show(fitted(plan, limits.seconds) if limits.seconds else plan)
    return 0
