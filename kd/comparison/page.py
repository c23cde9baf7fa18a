"""The content of ``comparison.json``, and its page."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import softmax

from kd import __version__
from kd.comparison.answers import divergences
from kd.comparison.comparison import Comparison
from kd.comparison.compatibility import findings, tokens
from kd.measure.significance import accuracy_interval
from kd.report.document import Block, Document, Section
from kd.report.drawing import INK, SERIES, Figure, legend_below
from kd.report.tables import Cell, Table, number, percent
from kd.report.words import plain
from kd.storage import records

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_EXAMPLES, LETTERS = 20, 300
CKA = (
    "Linear CKA of the layers' mean vectors, without bias: 1 where both arrange the texts alike up to rotation and "
    "scale, 0 where they are unrelated. Layer 0 is the embeddings."
)
PROBES = (
    "Share of held-out rows that a linear classifier of a layer's mean vectors has right. It is fitted to training "
    "rows, which a trained model has read before; the held-out rows are new to it."
)
INFORMATION = (
    "Nats that the teacher's answers to training rows say beyond their label: mean KL divergence of an answer from the "
    "mean answer with the same label. 0: a gold label would say as much. The loss of soft targets is multiplied by the "
    "square of the temperature, so a fall on the right loses nothing; a small value on the left does."
)


def content(one: Comparison, teacher: str, student: str) -> dict[str, Any]:
    """Return what is written to ``comparison.json``."""
    answered = one.teacher.answers and one.student.trained
    same = one.held[0].logits.argmax(axis=1) == one.held[1].logits.argmax(axis=1) if answered else None
    shares = [float(found[min(one.width, len(found)) - 1]) for found in one.shares] if one.width else []
    made = {
        **{"format": records.FORMAT, "source": one.sample.source, "rows": len(one.sample.held_texts)},
        **{"teacher": teacher, "student": student, "trained": one.student.trained},
        "findings": [asdict(found) for found in findings(one)],
        "probes": [[float(np.mean(right)) for right in side] for side in one.probes],
        "shares": [min(1.0, share) for share in shares],
        "similarity": [] if one.similarity is None else one.similarity.tolist(),
        "softness": [at._asdict() for at in one.softness] if one.teacher.answers else [],
        "agreement": None if same is None else float(same.mean()),
        "groups": [] if same is None else groups(one, same),
        "examples": [] if same is None else examples(one),
    }
    return made | {"sentence": sentence(made)}


def groups(one: Comparison, same: np.ndarray) -> list[dict[str, Any]]:
    """Return where both give the same label: by gold label, by length, and by how sure the teacher is."""
    counts = tokens(one.student, one.sample.held_texts).lengths
    sure = softmax(one.held[0].logits.astype(np.float64), axis=1).max(axis=1)
    parts = {f"gold {name}": one.sample.held_labels == place for place, name in enumerate(one.sample.label_names)}
    for name, values in (("pieces", counts), ("confidence of the teacher", sure)):
        low, high = np.quantile(values, [1 / 3, 2 / 3])
        bounds = [f"{bound:.0f}" if values is counts else f"{100 * bound:.0f} %" for bound in (low, high)]
        parts |= {
            f"{name}: to {bounds[0]}": values <= low,
            f"{name}: {bounds[0]} to {bounds[1]}": (values > low) & (values <= high),
            f"{name}: above {bounds[1]}": values > high,
        }
    found = []
    for name, rows in parts.items():
        if rows.any():
            low, high = accuracy_interval(same[rows])
            shown = {"agreement": float(same[rows].mean()), "low": low, "high": high}
            found.append({"name": name, "rows": int(rows.sum()), **shown})
    return found


def examples(one: Comparison) -> list[dict[str, Any]]:
    """Return the held-out texts whose answers differ most."""
    both = [softmax(outputs.logits.astype(np.float64), axis=1) for outputs in one.held]
    apart, names, sample = divergences(*both), one.sample.label_names, one.sample
    return [
        {
            **{"text": sample.held_texts[row], "gold": names[sample.held_labels[row]]},
            "labels": [names[side[row].argmax()] for side in both],
            "probabilities": [float(side[row].max()) for side in both],
            "divergence": float(apart[row]),
        }
        for row in np.argsort(-apart, kind="stable")[:MOST_EXAMPLES].tolist()
    ]


def sentence(found: Mapping[str, Any]) -> str:
    """Return the sentence for the model card."""
    text = f"Compared with its teacher on {found['rows']:,} held-out rows ({plain(found['source'])})"
    if found["agreement"] is not None:
        text += f": both give the same label to {100 * found['agreement']:.1f} %"
        least = min(found["groups"], key=lambda group: group["agreement"])
        text += f", and to {100 * least['agreement']:.1f} % of the {least['rows']:,} rows where they differ most"
        text += f" ({plain(least['name'])})"
    if found["similarity"]:
        text += f"; the CKA of their last layers is {found['similarity'][-1][-1]:.2f}"
    return text + "."


def document(found: Mapping[str, Any], name: str, arguments: Sequence[str]) -> Document:
    """Return the page."""
    columns = ("about", "finding", "set")
    cells = [[Cell(plain(one[key] or "")) for key in ("name", "sentence", "setting")] for one in found["findings"]]
    to_set = sum(bool(one["setting"]) for one in found["findings"])
    blocks = [Block("Findings", tables=[Table("findings", "Findings", columns, cells, (), columns)])]
    if found["probes"][0]:
        blocks.append(Block("What the layers know", (), [probes(found)], [layers(found)]))
    if found["similarity"]:
        blocks.append(Block("Similarity of the layers", (), [heat_map(found)]))
    if found["softness"]:
        blocks.append(Block("What the teacher's answers say", (), [informations(found)]))
    if found["groups"]:
        blocks.append(Block("Where they differ", (), (), [differing(found)]))
        blocks.append(Block("Examples most disagreed on", (), (), [disagreements(found)]))
    facts = [(f"{to_set}", "of the findings say what to set")]
    facts += [(f"{100 * found['agreement']:.1f} %", "same label")] if found["agreement"] is not None else []
    facts += [(f"{found['similarity'][-1][-1]:.2f}", "CKA of the last layers")] if found["similarity"] else []
    state = "" if found["trained"] else ", before the training"
    return Document(
        f"Comparison of {plain(name)} with its teacher{state}",
        f"Teacher: {plain(found['teacher'])}; {found['rows']:,} held-out rows ({plain(found['source'])}); "
        f"kd {__version__} on {time.strftime('%Y-%m-%d at %H:%M')}",
        [],
        [Section("Comparison", "", [found["sentence"]], facts, blocks, [])],
        [],
        shlex.join(["kd", "compare", *arguments]),
    )


def probes(found: Mapping[str, Any]) -> Figure:
    """Draw the accuracy of the probes over the layers; both models are stretched to the same depth."""
    lines = {name: values for name, values in zip(("teacher", "student"), found["probes"], strict=True) if values}

    def draw(axes: Axes) -> None:
        for (name, values), colour in zip(lines.items(), SERIES, strict=False):
            places = np.linspace(0, 1, len(values)) if len(values) > 1 else [1.0]
            axes.plot(places, [100 * value for value in values], "o-", color=colour, markersize=4, label=name)
        axes.set_xticks([0, 1], ["embeddings", "last layer"])
        axes.set_ylabel("linear probe, % right")
        legend_below(axes, 2)

    rows = [(name, layer, value) for name, values in lines.items() for layer, value in enumerate(values)]
    return Figure("probes", "Linear probes", PROBES, ("model", "layer", "accuracy"), rows, draw)


def layers(found: Mapping[str, Any]) -> Table:
    """Tabulate probe, variance and CKA of each layer of the teacher."""
    last = found["similarity"][-1] if found["similarity"] else [None] * len(found["probes"][0])
    shares = found["shares"] or [None] * len(found["probes"][0])
    rows = [
        [Cell(str(layer), layer), percent(probe), percent(share), number(alike)]
        for layer, (probe, share, alike) in enumerate(zip(found["probes"][0], shares, last, strict=True))
    ]
    note = (
        f"{PROBES} Variance: share of the layer's variance on held-out rows in its first d principal components, d "
        "being the width of the student's last layer. CKA: with the student's last layer."
    )
    columns = ("teacher layer", "probe", "variance", "CKA")
    return Table("layers", "Layers of the teacher", columns, rows, [note])


def heat_map(found: Mapping[str, Any]) -> Figure:
    """Draw the CKA of all pairs of layers."""
    values = np.array(found["similarity"])

    def draw(axes: Axes) -> None:
        from matplotlib.patches import Rectangle

        for (row, column), value in np.ndenumerate(values):
            depth = min(1.0, max(0.0, float(value)))
            axes.add_patch(
                Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=SERIES[0], alpha=0.02 + 0.6 * depth, lw=0)
            )
            if values.shape[1] <= 14:
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7.5, color=INK)
        axes.set_xticks(range(values.shape[1]))
        axes.set_yticks(range(values.shape[0]))
        axes.set(xlim=(-0.5, values.shape[1] - 0.5), ylim=(-0.5, values.shape[0] - 0.5))
        axes.set(xlabel="layer of the teacher", ylabel="layer of the student")
        axes.grid(visible=False)

    rows = [(row, column, value) for (row, column), value in np.ndenumerate(values)]
    columns = ("student layer", "teacher layer", "CKA")
    return Figure("cka", "CKA of all pairs of layers", CKA, columns, rows, draw, 0.9 + 0.32 * len(values))


def informations(found: Mapping[str, Any]) -> Figure:
    """Draw what the teacher's answers say beyond their label, by temperature."""
    rows = [(at["temperature"], at["information"], at["entropy"]) for at in found["softness"]]

    def draw(axes: Axes) -> None:
        axes.plot([row[0] for row in rows], [row[1] for row in rows], "o-", color=SERIES[0], markersize=4)
        axes.set_xscale("log")
        axes.set_xticks([row[0] for row in rows], [f"{row[0]:g}" for row in rows])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set(xlabel="temperature", ylabel="nats beyond the label")

    columns = ("temperature", "information", "entropy")
    return Figure("information", "Information in the answers", INFORMATION, columns, rows, draw, 2.6)


def differing(found: Mapping[str, Any]) -> Table:
    """Tabulate the agreement in parts of the rows."""
    rows = [
        [
            *(Cell(plain(one["name"])), Cell(f"{one['rows']:,}", one["rows"]), percent(one["agreement"])),
            Cell(f"{100 * one['low']:.1f} to {100 * one['high']:.1f}", (one["low"], one["high"])),
        ]
        for one in found["groups"]
    ]
    note = "Same label: share of the rows, in per cent, with Wilson's interval. Length is in pieces of the student."
    columns = ["rows with", "rows", "same label", "95 % interval"]
    return Table("agreement", "Agreement by part", columns, rows, [note], columns[:1])


def disagreements(found: Mapping[str, Any]) -> Table:
    """Tabulate the examples."""
    rows = [
        [
            Cell(plain(one["text"][:LETTERS])),
            Cell(plain(one["gold"])),
            *(
                Cell(f"{plain(label)} ({100 * share:.0f} %)")
                for label, share in zip(one["labels"], one["probabilities"], strict=True)
            ),
            number(one["divergence"]),
        ]
        for one in found["examples"]
    ]
    note = "Divergence: Jensen-Shannon, of the probabilities, in nats; at most 0.69. The largest come first."
    columns = ["text", "gold", "teacher", "student"]
    return Table("examples", "Examples", [*columns, "divergence"], rows, [note], columns)
