"""Read the files that kd wrote itself. Each kind has a schema, so that no other content is used. Needs no torch.

A file is whole, damaged, or of a newer kd; the last two raise an error of one sentence. A schema names what kd reads;
further keys are allowed, because a later kd may add some without changing the format.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from pydantic import AllowInfNan, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from kd.errors import KDError, NewerError
from kd.storage.checksum import digest
from kd.storage.files import read_json, read_yaml, write_json

FORMAT = 2
"""The format of the files that this kd writes. It grows when an older kd could not understand them."""

SEAL = "sha256_of_the_rest"
"""Key of a JSON file with the checksum of its other keys."""

Size = Annotated[int, Ge(0), Le(2**62)]
Number = Annotated[float, AllowInfNan(False), Ge(-1e18), Le(1e18)]
Amount = Annotated[float, AllowInfNan(False), Ge(0), Le(1e18)]
Part = Annotated[float, AllowInfNan(False), Ge(-1e-6), Le(1 + 1e-6)]
"""A share of rows. Sums of 32-bit numbers may leave [0, 1] by their rounding."""
Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


ABSENT: Any = Field(default=None)
"""Marks a key that may be absent, but not null."""


class Record(BaseModel):
    """A JSON or YAML object. Values have exactly their type: ``"1"`` is no number, ``true`` and ``null`` neither."""

    model_config = ConfigDict(extra="allow", strict=True, protected_namespaces=(), defer_build=True)


class Status(Record):
    """``status.json`` of a run.

    Args:
        products: SHA-256 of each file of a run that is done; a run of an early kd has none.
    """

    format: Size = 0
    state: Literal["running", "done", "pruned", "failed"]
    identity: str | None = None
    reason: str | None = None
    products: dict[str, Sha256] | None = None


class Node(Record):
    """A part of a configuration that names a class."""

    target: str = Field(alias="_target_")


class ConfiguredData(Record):
    """The section ``data`` of a run's configuration."""

    text: str | None = None
    label: str | None = None


class Configuration(Record):
    """``config.yaml`` of a run, as `kd.run.renames.current` leaves it."""

    data: ConfiguredData
    method: Node | None = None
    choices: dict[str, str | None] | None = None
    loss: dict[str, Any] | None = None
    trainer: dict[str, Any] | None = None
    mapper: dict[str, Any] | None = None
    seed: Size | None = None
    outputs: str | None = None
    threads: Annotated[int, Ge(1), Le(1024)] | None = None


class Scores(Record):
    """The figures of a model on a split. The last six may be infinite or nan after a training that diverged."""

    rows: Size | None = None
    accuracy: Part | None = None
    agreement: Part | None = None
    macro_f1: float | None = None
    balanced_accuracy: float | None = None
    auroc: float | None = None
    nll: float | None = None
    ece: float | None = None
    kl: float | None = None
    teacher: Scores | None = None


class Latency(Record):
    """The latency of one text, in milliseconds."""

    p50_ms: Annotated[float, AllowInfNan(False), Ge(1e-9), Le(1e12)]
    p95_ms: Amount | None = None
    threads: Size


class Parameters(Record):
    """Numbers of parameters."""

    total: Annotated[int, Ge(1), Le(2**62)]
    without_embeddings: Size
    trainable: Size | None = None


class Energy(Record):
    """The energy of a training."""

    joules: Amount
    seconds: Amount
    sources: list[str]


class Cost(Record):
    """What a model costs: size, time and energy."""

    training_seconds: Amount | None = None
    labelling_seconds: Amount | None = None
    model_bytes: Size | None = None
    parameters: Parameters | None = None
    latency: Latency | None = None


class TeacherCost(Cost):
    """The cost of a teacher, in full; a teacher that is a file has a name alone."""

    name: str

    @model_validator(mode="after")
    def _in_full(self) -> TeacherCost:
        if len({part is None for part in (self.parameters, self.model_bytes, self.latency)}) > 1:
            raise ValueError("expected parameters, model_bytes and latency, or none of them")
        return self


class TeacherInside(Record):
    """The part of a composition that is a teacher's."""

    encoder: Size
    encoder_ms: Amount
    whole_ms: Annotated[float, AllowInfNan(False), Ge(1e-9)] | None = None


class Partner(Record):
    """A model that learned together with the student."""

    parameters: Parameters
    validation_accuracy_before: Part
    validation_accuracy: Part


class Speedup(Record):
    """How many times faster a student is than its teacher, measured in turns."""

    ratio: Annotated[float, AllowInfNan(False), Ge(1e-9), Le(1e9)]
    low: Amount | None = None
    high: Amount | None = None
    turns: Size | None = None


class Fitting(Record):
    """Whether the student fits its training rows too closely, or too little (`kd.training.fitting`)."""

    verdict: Literal["overfitting", "underfitting", "neither"]
    sentence: str
    train_accuracy: Part
    gap: Number
    rows: Size
    best_epoch: Size | None
    epochs: Size | None


class Metrics(Cost):
    """``metrics.json`` of a run."""

    student: str = ABSENT
    embeddings: str = ABSENT
    data: str = ABSENT
    weights: str = ABSENT
    seed: Size = ABSENT
    padding_share: Part = ABSENT
    energy: Energy | None = None
    validation: Scores = ABSENT
    test: Scores = ABSENT
    teacher_cost: TeacherCost = ABSENT
    teacher_inside: TeacherInside = ABSENT
    speedup: Speedup = ABSENT
    fitting: Fitting | None = None
    partners: dict[str, Partner] = ABSENT
    layers: dict[str, list[list[int]]] = ABSENT


class Rows(Record):
    """The rows of a run: the checksum of each split, and the names of the labels."""

    train: str | None = None
    validation: str | None = None
    test: str | None = None
    label_names: list[str] | None = None
    transfer: dict[str, Any] | None = None


class Trained(Record):
    """The teacher of a run."""

    checksum: str
    name: str | None = None


class Git(Record):
    """The checkout of kd."""

    commit: str
    uncommitted_changes: bool = False


class Environment(Record):
    """``environment.json`` of a run."""

    data: Rows | None = None
    teacher: Trained | None = None
    threads: Annotated[int, Ge(1), Le(1024)] | None = None
    command: list[str] | None = None
    python: str | None = None
    packages: dict[str, str | None] | None = None
    git: Git | None = None
    kernels: dict[str, int] | None = None
    machine: dict[str, Any] | None = None


class SweepJob(Record):
    """A job of a sweep."""

    number: Size
    overrides: list[str]
    identity: str
    directory: str
    state: Literal["waiting", "running", "done", "pruned", "failed"]
    reason: str | None = None
    log: str | None = None
    attempts: Size
    seconds: Amount | None = None
    found: bool = False


class Sweep(Record):
    """``sweep.json`` of a sweep."""

    format: Size
    command: list[str] = ABSENT
    started: str | None = None
    finished: str | None = None
    jobs: list[SweepJob]


class TrainedTeacher(Record):
    """``teacher.json`` beside a teacher that kd has trained."""

    name: str
    checksum: Sha256
    validation_accuracy: Part
    training_seconds: Amount | None = None


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file with its own checksum in one step."""
    write_json(path, {**content, SEAL: digest(json.loads(json.dumps(content)))})


def read(path: Path, kind: type[Record], sealed: bool = False, advice: str = "train it again") -> dict[str, Any]:
    """Read a JSON file of kd; a file without a checksum is of an early kd.

    Args:
        path: of the file.
        kind: its schema.
        sealed: refuse a file without a checksum as well, because it can be made again.
        advice: what to do about a damaged file.

    Raises:
        KDError: it is missing, damaged, or (`NewerError`) was written by a newer kd.
    """
    content = read_json(path)
    seal = content.pop(SEAL, None)
    require(content, kind, path, advice)
    checked = sealed or seal is not None or content.get("format", 0) > 1  # format 1 had no checksum
    if checked and seal != digest(content):
        raise KDError(f"'{path}' is damaged: it does not match its own checksum; {advice}")
    return content


def read_configuration(path: Path) -> dict[str, Any]:
    """Read the ``config.yaml`` of a run, without checking it against its schema.

    Raises:
        KDError: it is missing or damaged. It was resolved when it was written, so it is also damaged if it holds an
            interpolation, which could read this machine's environment.
    """
    content = read_yaml(path)
    if not isinstance(content, dict) or "data" not in content:
        raise KDError(f"expected a run's configuration in '{path}', found something else")
    for text in texts(content):
        if "${" in text:
            raise KDError(
                f"expected a resolved configuration in '{path}', found the interpolation {text[:60]!r}, which kd never "
                "writes there; train the run again"
            )
    return content


def texts(node: Any) -> list[str]:
    """Return every text in plain containers, keys included."""
    if isinstance(node, str):
        return [node]
    if isinstance(node, Mapping):
        return [text for pair in node.items() for part in pair for text in texts(part)]
    return [text for part in node for text in texts(part)] if isinstance(node, list) else []


def require(content: Mapping[str, Any], kind: type[Record], path: Path, advice: str = "train it again") -> None:
    """Refuse content that does not fit a schema.

    Raises:
        KDError: with the first key that does not fit.
    """
    newest = content.get("format", 0)
    if "format" in kind.model_fields and isinstance(newest, int) and newest > FORMAT:
        raise NewerError(
            f"'{path}' is of a newer kd: expected format {FORMAT} or lower, found {newest}; update kd to read it"
        )
    try:
        kind.model_validate(dict(content))
    except ValidationError as error:
        mistake = error.errors(include_url=False)[0]
        place = ".".join(map(str, mistake["loc"])) or "the whole"
        message = mistake["msg"]
        found = "" if mistake["type"] == "missing" else f", found {str(repr(mistake['input']))[:60]}"
        raise KDError(f"'{path}' is damaged: {place}: {message[:1].lower()}{message[1:]}{found}; {advice}") from None
