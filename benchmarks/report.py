"""Time and memory of ``kd report`` on many runs, which are written here.

    python benchmarks/report.py            # 1,000 runs: 333 settings of three seeds and one more
    python benchmarks/report.py --runs 100 --keep DIR

The logits are random, not trained: the time is of reading, statistics, drawing and writing.
"""

import argparse
import copy
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import yaml

from kd.run.directory import RunDirectory

ROWS = {"validation": 1066, "test": 889}
CONFIG = yaml.safe_load("""
seed: 0
alpha: 0.5
temperature: 1
label_smoothing: 0.0
cache: {use: true, max_gb: 20}
balance:
  calibrate: false
  alpha: {_target_: kd.methods.schedules.Constant, value: 0.5}
  temperature: {_target_: kd.methods.schedules.Constant, value: 1}
  confidence: {_target_: kd.methods.confidence.EveryRow}
  weighting: {_target_: kd.methods.weighting.ConstantWeighting, _partial_: true}
resume: true
rerun: false
threads: 1
outputs: outputs
peers: {}
loss:
  soft_target: {_target_: kd.losses.logits.SoftTarget, temperature: 1, weight: 1.0}
callbacks:
  best: {_target_: lightning.pytorch.callbacks.ModelCheckpoint, filename: best, monitor: val/accuracy, mode: max}
  last: {_target_: lightning.pytorch.callbacks.ModelCheckpoint, filename: last, monitor: null, mode: min}
logger:
  csv: {_target_: lightning.pytorch.loggers.CSVLogger, name: '', version: ''}
choices: {method: distillation, student: dan, embeddings: pca, tokenizer: restricted, teacher: minilm, data: reviews}
tokenizer: {_target_: kd.data.tokenizers.TeacherTokenizer, restrict: true, min_count: 1, max_size: null}
embeddings: {_target_: kd.models.embeddings.TeacherEmbeddings, std: 0.1}
student: {_target_: kd.models.bow.DANConfig, embedding_size: 128, hidden_size: 128, num_layers: 2, dropout: 0.3}
teacher:
  {_target_: kd.teacher.teacher.Teacher, name_or_path: 'asset:all-minilm-l6-v2', fine_tune: true, max_length: 64,
   epochs: 2, batch_size: 32, learning_rate: 0.0001, weight_decay: 0.01, warm_up: 0.1, gradient_clip: 1.0, seed: 0}
data:
  {name: reviews, path: reviews.csv, train: null, validation: null, test: null, text: text, label: label,
   label_names: [negative, positive], validation_share: 0.1, test_share: 0.1, limit: null, batch_size: 64,
   _target_: kd.data.sources.from_files}
mapper: {_target_: kd.features.mapper.Linear, _partial_: true, bias: true}
optim:
  optimizer: {_target_: torch.optim.AdamW, _partial_: true, lr: 0.001, betas: [0.9, 0.999], eps: 1.0e-08}
  schedule: {_target_: kd.methods.learning_rate.warm_up_and_decay, _partial_: true, decay: linear, warm_up: 0.1}
trainer: {_target_: lightning.Trainer, accelerator: cpu, devices: 1, max_epochs: 10, deterministic: true}
method: {_target_: kd.methods.distillation.Distillation}
""")


def write_runs(folder: Path, count: int) -> None:
    """Write ``count`` runs: students, embeddings, temperatures, alphas and three seeds; a few are baselines."""
    generator = np.random.default_rng(0)
    labels = {name: generator.integers(2, size=rows) for name, rows in ROWS.items()}
    hard = {name: generator.random(rows) for name, rows in ROWS.items()}
    teacher = {name: answers(labels[name], hard[name], 0.82, generator) for name in ROWS}
    settings = [
        (method, student, embeddings, temperature, alpha)
        for student in ("mlp", "dan", "textcnn", "bilstm")
        for embeddings in ("pca", "random")
        for method, temperatures, alphas in (("supervised", (1,), (0.5,)), ("distillation", range(1, 9), range(1, 7)))
        for temperature in temperatures
        for alpha in alphas
    ]
    for number in range(count):
        method, student, embeddings, temperature, alpha = settings[number // 3 % len(settings)]
        seed = number % 3 + 3 * (number // (3 * len(settings)))
        level = 0.74 + 0.03 * (method == "distillation") + 0.01 * generator.normal()
        logits = {name: answers(labels[name], hard[name], level, generator) for name in ROWS}
        config = copy.deepcopy(CONFIG) | {"seed": seed, "temperature": temperature, "alpha": alpha / 10}
        config["choices"] |= {"method": method, "student": student, "embeddings": embeddings}
        write_copies(config)
        write_run(folder / f"{number:04}", config, labels, logits, teacher)


def write_copies(config: dict) -> None:
    """Write temperature and alpha to the places that follow them."""
    config["loss"]["soft_target"]["temperature"] = config["temperature"]
    for name in ("temperature", "alpha"):
        config["balance"][name]["value"] = config[name]


def answers(labels: np.ndarray, hard: np.ndarray, accuracy: float, generator: np.random.Generator) -> np.ndarray:
    """Draw logits ``[N, 2]`` with about the given accuracy, and with most mistakes on hard rows."""
    right = 0.7 * hard + 0.3 * generator.random(len(labels)) < accuracy
    margin = np.where(right, 1, -1) * generator.exponential(1.5, len(labels)) * (2 * labels - 1)
    return np.stack([-margin / 2, margin / 2], axis=1).astype(np.float32)


def write_run(path: Path, config: dict, labels: dict, logits: dict, teacher: dict) -> None:
    """Write a run directory as ``kd train`` does, without the model."""
    path.mkdir(parents=True)
    run = RunDirectory(path)
    run.config_file.write_text(yaml.safe_dump(config, sort_keys=False))
    parts = [
        {
            "split": [name] * rows,
            "index": np.arange(rows),
            "line": np.arange(rows),
            "label": labels[name],
            "logits": list(logits[name]),
            "teacher_logits": list(teacher[name]),
        }
        for name, rows in ROWS.items()
    ]
    pyarrow.parquet.write_table(pyarrow.concat_tables(map(pyarrow.table, parts)), run.predictions_file)
    accuracy = {name: float((logits[name].argmax(1) == labels[name]).mean()) for name in ROWS}
    cost = {
        "parameters": {"total": 1_316_994, "without_embeddings": 33_282},
        "model_bytes": 5_268_584,
        "latency": {"p50_ms": 0.12 + 0.001 * (config["seed"] % 7), "p95_ms": 0.17, "threads": 1},
        "training_seconds": 20.0,
    }
    figures = {name: {"rows": ROWS[name], "accuracy": accuracy[name], "nll": 0.5, "agreement": 0.8} for name in ROWS}
    metrics = {**config["choices"], **cost, **figures, "seed": config["seed"], "padding_share": 0.03}
    metrics["teacher_cost"] = {"name": "asset:big", **cost, "labelling_seconds": 9.0}
    metrics["weights"] = "best on validation"
    run.metrics_file.write_text(json.dumps(metrics))
    environment = {
        "command": ["kd", "train", "-m", "method=supervised,distillation"],
        "data": dict.fromkeys(("train", "validation", "test"), "rows"),
        "teacher": {"checksum": "teacher"},
    }
    (path / "environment.json").write_text(json.dumps(environment))
    curve = "".join(f"{epoch},{37 * epoch},,{accuracy['validation'] - 0.2 / (epoch + 1)}\n" for epoch in range(10))
    (path / "metrics.csv").write_text("epoch,step,train/loss/total,val/accuracy\n" + curve)
    run.set_status("done")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--keep", type=Path, help="write the runs into this new folder, and keep them")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary) / "runs"
        write_runs(folder, options.runs)
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "kd", "report", str(folder)], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        size = (folder / "report" / "index.html").stat().st_size / 1e6
        print(f"{options.runs} runs: {seconds:.1f} s, {peak:.0f} MiB at the peak, a page of {size:.2f} MB")


if __name__ == "__main__":
    main()
