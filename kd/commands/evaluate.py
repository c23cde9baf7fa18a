"""``kd evaluate RUN``: a finished run's student measured again, on the run's own rows or on a file."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from kd import build
from kd.data.sources import from_files, labelled_file
from kd.errors import KDError
from kd.metrics import fidelity_metrics, label_metrics
from kd.predictor import Predictor
from kd.run import RunDirectory
from kd.statistics import accuracy_interval
