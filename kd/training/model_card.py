"""Write the README of a saved model."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from kd.config import build


def model_card(config: DictConfig, figures: dict[str, Any]) -> str:
    """Return the model card: what the model is, how it was trained, its figures and how to use it."""
    test, parameters, taught = figures["test"], figures["parameters"], ""
    if build.method_class(config).reads_teacher:
        teacher = figures.get("teacher_cost", {"name": "its peers"})["name"]
        taught = f", taught by `{teacher}` (`loss={list(config.loss)}`)"
    return f"""---
library_name: kd
pipeline_tag: text-classification
---
# {figures["student"]}, {figures["method"]}, {figures["data"]}

A `{figures["student"]}` text classifier with {parameters["total"]:,} parameters ({parameters["without_embeddings"]:,}
without embeddings), trained by `kd` with `method={figures["method"]}`{taught}, seed {figures["seed"]}.

| | validation | test |
|---|---|---|
| rows | {figures["validation"]["rows"]} | {test["rows"]} |
| accuracy | {figures["validation"]["accuracy"]:.4f} | {test["accuracy"]:.4f} |
| macro F1 | {figures["validation"]["macro_f1"]:.4f} | {test["macro_f1"]:.4f} |
| balanced accuracy | {figures["validation"]["balanced_accuracy"]:.4f} | {test["balanced_accuracy"]:.4f} |
| AUROC | {figures["validation"]["auroc"]:.4f} | {test["auroc"]:.4f} |

Weights: {figures["weights"]}. The test rows were read once, after the training.

```python
import kd  # registers the architecture
from transformers import pipeline

classify = pipeline("text-classification", model="path/to/this/folder")
```
"""
