"""Compare spinning and sleeping threads: how slow torch becomes when another process uses the same cores.

    python benchmarks/waiting.py [--steps 8] [--threads 2]

Measures a training step of a BERT of MiniLM's size (6 layers, 384 wide, batch 32, 30 tokens) on an idle machine and
beside one busy process in another session, with OMP_WAIT_POLICY unset (libgomp's threads spin for a while) and PASSIVE
(``kd`` sets this). Each figure is the median of its steps; the four conditions run one after the other.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

from rich.console import Console
from rich.table import Table

POLICIES = ("unset", "PASSIVE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(step_seconds(options.steps, options.threads))
        return
    table = Table(box=None, pad_edge=False, title=f"ms a step, {options.threads} threads", title_justify="left")
    for name in ("OMP_WAIT_POLICY", "idle machine", "beside one busy process", "ratio"):
        table.add_column(name, justify="left" if name.isupper() else "right")
    for policy in POLICIES:
        alone = measured(policy, options)
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
        try:
            beside = measured(policy, options)
        finally:
            busy.kill()
            busy.wait()
        table.add_row(policy, f"{1000 * alone:.0f}", f"{1000 * beside:.0f}", f"{beside / alone:.1f}")
    Console().print(table)


def measured(policy: str, options: argparse.Namespace) -> float:
    """Return the seconds of a step in a new process with this policy."""
    command = [sys.executable, __file__, "--worker", f"--steps={options.steps}", f"--threads={options.threads}"]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if policy != "unset":
        environment["OMP_WAIT_POLICY"] = policy
    return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def step_seconds(steps: int, threads: int) -> float:
    """Return the median seconds of a training step in this process."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    model = BertForSequenceClassification(BertConfig(**sizes)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    ids, labels = torch.randint(1000, 20000, (32, 30)), torch.randint(0, 2, (32,))
    times = []
    for _ in range(steps + 2):
        start = time.perf_counter()
        model(input_ids=ids, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


if __name__ == "__main__":
    main()
