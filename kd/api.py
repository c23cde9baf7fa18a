"""Train, distil, sweep and read runs from a Python program or a notebook: ``import kd``, then ``kd.train(...)``.

Each call does what the command of the same name does, and writes the same files. Nothing here loads torch before a
model is trained or asked.
"""

from __future__ import annotations

import html
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

import kd.sweep as package
from kd.config.compose import composed
from kd.config.words import outputs_of, words_of, written
from kd.errors import KDError, Pruned
from kd.run.directory import RunDirectory
from kd.runtime.command import run_command
from kd.runtime.global_state import logged, restored
from kd.runtime.launch import quoted
from kd.sweep.jobs import first_values

if TYPE_CHECKING:
    import pandas


class Run:
    """A finished run.

    Args:
        directory: where ``kd train`` or `train` wrote it.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = RunDirectory.finished(directory, ("metrics.json",)).path

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Return the content of ``metrics.json``: final figures on validation and test, sizes, times."""
        return RunDirectory(self.directory).metrics()

    @cached_property
    def _classifier(self) -> Any:
        from kd.classifier import load

        return load(self.directory)

    def predict(self, texts: str | Iterable[str]) -> pandas.DataFrame:
        """Return the columns that ``kd predict`` prints: text, prediction, and a probability for each label.

        Raises:
            KDError: something other than texts is given.
        """
        import pandas

        rows = _texts([texts] if isinstance(texts, str) else texts, "texts")
        names = self._classifier.label_names
        probabilities = self._classifier.probabilities(rows)
        columns = {f"probability_{name}": probabilities[:, number] for number, name in enumerate(names)}
        predictions = [names[number] for number in probabilities.argmax(axis=1)]
        return pandas.DataFrame({"text": rows, "prediction": predictions, **columns})

    def report(self) -> Report:
        """Return the report of this run: in a notebook, the last line of a cell shows it with its figures."""
        return Report([self.directory]).shown()

    def __repr__(self) -> str:
        return f"<kd run {self.directory}>"


class Report:
    """What ``kd report`` shows: tables, figures and verdicts of the runs in or below some folders."""

    def __init__(self, folders: Sequence[str | Path]) -> None:
        from kd.report.folds import pool_folds
        from kd.report.runs import find_runs
        from kd.report.study import studies

        self.folders = list(map(Path, folders))
        self._found = pool_folds(find_runs(self.folders))
        self._studies = studies(self._found.runs)

    @property
    def runs(self) -> list[Run]:
        """Return the runs that the report compares."""
        return [Run(one.directory.path) for each in self._found.runs for one in each.trainings]

    @cached_property
    def _document(self) -> Any:
        from kd.report.document import document

        return document(self.folders, self._found, self._studies)

    @cached_property
    def tables(self) -> dict[str, pandas.DataFrame]:
        """Return the tables of the page by name; where there are several test sets, those of the first is ``1-...``."""
        import pandas

        return {
            f"{part.prefix}{table.name}": pandas.read_csv(StringIO(table.csv()))
            for part in self._document.sections
            for each in part.blocks
            for table in each.tables
        }

    @cached_property
    def page(self) -> Path:
        """Write the page into ``report/`` of the first folder, as ``kd report`` does, and return its ``index.html``."""
        from kd.report.page import write

        return write(self._document, self.folders[0] / "report")

    def show(self) -> None:
        """Print the table that ``kd report`` prints."""
        from rich.console import Console

        from kd.report.terminal import show

        for study in self._studies:
            show(study, Console(soft_wrap=False))

    def shown(self) -> Report:
        """Print the table, but not in a notebook, which shows the page; return the report."""
        from rich.console import Console

        if not Console().is_jupyter:
            self.show()
        return self

    def _repr_html_(self) -> str:
        page = html.escape(self.page.read_text(encoding="utf-8"))  # in a frame, so that the styles stay apart
        return f'<iframe srcdoc="{page}" style="width:100%;height:45em;border:0" title="kd report"></iframe>'

    def __repr__(self) -> str:
        return f"<kd report on {', '.join(map(str, self.folders))}>"


def read_run(directory: str | Path) -> Run:
    """Read a finished run. Needs no torch until `Run.predict`.

    Raises:
        KDError: there is no run, it is not done, or its figures are damaged.
    """
    return Run(directory)


def read_report(*folders: str | Path) -> Report:
    """Read the finished runs in or below some folders, and compare them. Needs no torch.

    Raises:
        KDError: there is no finished run.
    """
    return Report(folders)


def compose(words: Iterable[str] = (), **options: Any) -> DictConfig:
    """Return the configuration that `train` would use, for looking at it; `train` takes the same words and options.

    Raises:
        KDError: an option is unknown, or Hydra refuses a value.
    """
    with restored():
        config = composed(words_of(words, options))
        config.choices = OmegaConf.to_container(config.choices, resolve=True)  # Hydra has them only here
    return config


def train(*words: str, directory: str | Path | None = None, **options: Any) -> Run:
    """Train one student as ``kd train`` does, and return the run.

    Args:
        words: options as on the command line, such as ``"trainer.max_epochs=3"`` or ``"balance/alpha=cosine"``.
        directory: of the run. If it holds this run already, nothing is trained; if it was interrupted, it is resumed.
        options: by name, such as ``student="bilstm"``; a dictionary for a section, such as ``trainer={"max_epochs":
            3}``. Wherever ``data`` takes a file, it also takes a pandas DataFrame or a `datasets.Dataset`.

    Raises:
        KDError: an option is wrong, or the run cannot be trained.
    """
    given = words_of(words, options)
    if directory is not None:
        given.append(f"hydra.run.dir={quoted(str(directory))}")
    with restored():
        config = composed(given)
        place = Path(HydraConfig.get().run.dir)
        if config.trainer.devices != 1:  # its ranks are started with the command of this process
            run_command(["train", *given, f"hydra.run.dir={quoted(str(place))}"])
            return Run(place)
        from kd.training import single_run

        try:
            place.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise KDError(f"directory: expected a folder in '{place}', found a file; choose another place") from error
        sys.argv = ["kd", "train", *given]  # which the run keeps as the command that made it
        with logged(logging.FileHandler(place / "train.log")):
            try:
                single_run.train(config, place)
            except Pruned as pruned:
                raise KDError(
                    f"the run in '{place}' was stopped by callbacks=[pruning] ({pruned}); leave it out"
                ) from None
    return Run(place)


def sweep(*words: str, directory: str | Path | None = None, **options: Any) -> Report:
    """Train a student for every combination of values, as ``kd train -m`` does, and return the report of all.

    Args:
        words: options as on the command line, such as ``"temperature=1,2,4"``.
        directory: of the sweep; the same call resumes there.
        options: by name. A list holds the values to try: ``seed=[0, 1, 2]``, ``method=["supervised", "distillation"]``.

    Raises:
        KDError: an option is wrong, or a job failed.
    """
    several = {
        key: ",".join(map(written, value)) for key, value in options.items() if isinstance(value, list | tuple | range)
    }
    if nothing := [key for key, values in several.items() if not values]:
        raise KDError(f"{nothing[0]}: expected at least one value to try, got an empty list; give one or more")
    given = words_of(words, {key: value for key, value in options.items() if key not in several})
    given += [f"{key}={values}" for key, values in several.items()]
    if directory is not None:
        given.append(f"hydra.sweep.dir={quoted(str(directory))}")
    with restored():
        composed(first_values(given))
        place = Path(HydraConfig.get().sweep.dir)
    run_command(["train", "-m", *given])
    return Report([place])


def distill(
    teacher: Any,
    texts: Iterable[str],
    labels: Iterable[Any] | None = None,
    student: str = "bilstm",
    *words: str,
    label_names: Sequence[str] | None = None,
    directory: str | Path | None = None,
    **options: Any,
) -> Run:
    """Train a student that imitates a teacher on some texts, and return the run.

    Args:
        teacher: a classifier of Hugging Face (a folder, a pipeline, or a model with its tokenizer), a file of answers,
            or a function that returns probabilities for a list of texts. A function is asked for each text once; its
            answers are kept in a file below the outputs, so that the run can be resumed and reproduced without it.
        texts: to learn from; a part of them is kept for validation and test.
        labels: of the texts, None for a text without one. Without ``labels``, the teacher's answer stands in for each
            label: alpha is 1, and the accuracies of the run say how often the student agrees with its teacher.
        student: as in `train`.
        label_names: of the teacher's columns, where neither the teacher nor the labels give them.
        words: as in `train`.
        directory: as in `train`.
        options: as in `train`.

    Raises:
        KDError: an argument is wrong, or the run cannot be trained.
    """
    import pandas

    rows, outputs = _texts(texts, "texts"), outputs_of(words, options)
    gold = None if labels is None else list(labels)
    if gold is not None and len(gold) != len(rows):
        raise KDError(f"labels: expected one for each of {len(rows)} texts, got {len(gold)}; give None for no label")
    names = None if label_names is None else list(map(str, label_names))
    if names and (isinstance(label_names, str) or len(set(names)) < len(names)):
        raise KDError(f"label_names: expected a list of different names, got {label_names!r}; name each class once")
    taught, names, answers = _teacher(teacher, rows, gold, names, outputs)
    if gold is None:
        gold = [None if row[0] != row[0] else names[int(row.argmax())] for row in answers()]  # NaN: it was not asked
        options = {"alpha": 1.0} | options
    frame = pandas.DataFrame({"text": rows, "label": gold})
    unlabelled = frame["label"].isna()
    data = {"path": frame[~unlabelled], "label_names": names}
    if unlabelled.any():
        data["unlabelled"] = frame.loc[unlabelled, ["text"]]
    data |= options.pop("data", {})
    return train(*taught, *words, student=student, data=data, directory=directory, **options)


def _teacher(
    teacher: Any, rows: list[str], gold: list[Any] | None, names: list[str] | None, outputs: Path
) -> tuple[list[str], list[str], Callable[[], Any]]:
    """Return the options of a teacher, the names of its classes, and what gives its probabilities for the rows."""
    from kd.teacher import given

    if folder := given.model_folder(teacher, outputs):
        from kd.classifier import load

        classifier = load(folder)
        names = names or classifier.label_names
        if len(names) != len(classifier.label_names):
            raise KDError(f"label_names: expected {len(classifier.label_names)}, as the teacher has, got {len(names)}")
        taught = ["teacher=hf", f"teacher.name_or_path={quoted(str(folder))}", "teacher.fine_tune=false"]
        return taught, names, lambda: classifier.probabilities(rows)
    if names is None and gold is not None:
        different = {label for label in gold if label is not None}
        names = list(map(str, sorted(different, key=lambda label: (str(type(label)), label))))
    if callable(teacher):
        with logged():
            teacher = given.answers_of(teacher, rows, names, outputs)
    if not (isinstance(teacher, str | Path) and Path(teacher).is_file()):
        raise KDError(f"teacher: expected a model, a function or a file of answers, got {teacher!r}; give one")
    file = Path(teacher)
    if (known := names or given.names_in(file)) is None:
        raise KDError("label_names: expected the classes of the teacher, found none in its file; name them")
    taught = ["teacher=answers", f"teacher.path={quoted(str(file))}"]
    return taught, known, lambda: given.answers_in(file, rows, known)


class _Callable(ModuleType):
    """The package ``kd.sweep``, which has the name of the function: a call of it is a call of the function."""

    def __call__(self, *words: str, **options: Any) -> Report:
        return sweep(*words, **options)


package.__class__ = _Callable


def _texts(texts: Iterable[str], name: str) -> list[str]:
    """Return texts as a list; refuse anything else."""
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise KDError(f"{name}: expected a list of texts, got {texts!r}; give a list")
    rows = list(texts)
    if wrong := [row for row in rows if not isinstance(row, str)]:
        raise KDError(f"{name}: expected a list of texts, got {wrong[0]!r} in it; leave it out or write it as a text")
    return rows
