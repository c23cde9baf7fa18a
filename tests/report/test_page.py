"""The page of `kd report`: what is on it, and how a real browser shows it."""

import csv
import json
import re
import shutil
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import yaml
from PIL import Image

from benchmarks.report import CONFIG, ROWS, answers, write_copies, write_run
from kd.cli import main
from kd.report import write_report
from kd.run.directory import RunDirectory
from kd.storage.files import write_json

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"),
    *("--disable-component-update", "--disable-sync"),
)


class Runs:
    """Writes run directories with answers to one test set."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.generator = np.random.default_rng(0)
        self.labels = {name: self.generator.integers(2, size=rows) for name, rows in ROWS.items()}
        self.hard = {name: self.generator.random(rows) for name, rows in ROWS.items()}
        self.teacher = self.answers(0.85)

    def answers(self, accuracy: float) -> dict:
        return {name: answers(self.labels[name], self.hard[name], accuracy, self.generator) for name in ROWS}

    def write(self, name: str, method: str, accuracy=0.75, logits=None, data="rows", **changes) -> Path:
        config = json.loads(json.dumps(CONFIG)) | {key: value for key, value in changes.items() if key in CONFIG}
        config["choices"] |= {"method": method} | changes.get("of_choices", {})
        write_copies(config)
        path = self.folder / name
        write_run(path, config, self.labels, logits or self.answers(accuracy), self.teacher)
        environment = RunDirectory(path).environment()
        environment["data"]["test"] = data
        environment["command"] = ["/somewhere/bin/kd", "train", f"method={method}", f"seed={config['seed']}", "data=x"]
        write_json(path / "environment.json", environment)
        return path

    def grid(self, seeds=(0, 1, 2)) -> None:
        for seed in seeds:
            self.write(f"alone-{seed}", "supervised", 0.72, seed=seed)
            for number, temperature in enumerate((1, 2, 4)):
                for alpha in (0.5, 0.9):
                    accuracy = 0.73 + 0.03 * number * alpha
                    name = f"taught-{temperature}-{alpha}-{seed}"
                    self.write(name, "distillation", accuracy, seed=seed, temperature=temperature, alpha=alpha)


@pytest.fixture
def runs(tmp_path) -> Runs:
    return Runs(tmp_path / "runs")


def page(folder: Path) -> str:
    return write_report([folder], folder / "report").read_text()


def words(text: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / "report" / "tables" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def test_everything_lies_in_the_folder(runs, capsys):
    runs.grid()
    assert main(["report", str(runs.folder)]) == 0
    place = runs.folder / "report"
    index = place / "index.html"
    assert index.stat().st_size < 1e6
    assert f"the page is {index.resolve()}" in capsys.readouterr().err
    figures = {path.stem for path in (place / "figures").iterdir()}
    assert {"gain", "heat-map-1", "curves", "accuracy-latency", "fidelity", "reliability-after"} <= figures
    for figure in figures:
        assert (place / "figures" / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (place / "figures" / f"{figure}.svg").read_text()
        assert len((place / "figures" / f"{figure}.csv").read_text().splitlines()) > 1
    for name in ("results", "gain", "best", "costs", "fidelity", "calibration"):
        tex = (place / "tables" / f"{name}.tex").read_text()
        assert tex.isascii(), "LaTeX without further packages reads it"
        assert tex.count("{") == tex.count("}") and "\\toprule" in tex and "% kd report" in tex
        assert len(table(runs.folder, name)) >= 6
    markdown = (place / "report.md").read_text()
    for linked in re.findall(r"\]\((figures/[^)]+)\)", markdown):
        assert (place / linked).is_file()
    # Written again, it replaces itself, and the report is not taken for a run.
    before = words(index.read_text())
    assert main(["report", str(runs.folder)]) == 0
    minutes = re.compile(r"at \d\d:\d\d")
    assert minutes.sub("", words(index.read_text())) == minutes.sub("", before)
    assert not list(runs.folder.glob(".report*"))


def test_the_numbers_are_those_of_the_runs(runs):
    runs.grid()
    page(runs.folder)
    paths = [runs.folder / f"taught-4-0.9-{seed}" for seed in range(3)]
    tables = [pyarrow.parquet.read_table(path / "predictions.parquet").to_pandas() for path in paths]
    accuracies = []
    for one in tables:
        test = one[one["split"] == "test"]
        accuracies.append(float((np.stack(test["logits"]).argmax(1) == test["label"]).mean()))
    (row,) = [row for row in table(runs.folder, "results") if row["model"] == "distillation alpha=0.9 temperature=4"]
    assert float(row["test"]) == pytest.approx(np.mean(accuracies))
    assert float(row["±"]) == pytest.approx(np.std(accuracies, ddof=1))
    assert row["seeds"] == "0, 1, 2 (n = 3)"
    assert float(row["95 % interval low"]) < np.mean(accuracies) < float(row["95 % interval high"])
    teacher = (runs.teacher["test"].argmax(1) == runs.labels["test"]).mean()
    assert float(row["retained"]) == pytest.approx(np.mean(accuracies) / teacher)
    (supervised,) = [float(row["test"]) for row in table(runs.folder, "results") if row["model"] == "supervised"]
    gap = (np.mean(accuracies) - supervised) / (teacher - supervised)
    assert float(row["gap closed"]) == pytest.approx(gap)


def test_validation_alone_chooses(runs):
    """The setting that is best on test is not the one that is set off."""
    right = runs.answers(0.80)
    runs.write("alone", "supervised", 0.70)
    better_on_test = {"validation": runs.answers(0.70)["validation"], "test": right["test"]}
    better_on_validation = {"validation": right["validation"], "test": runs.answers(0.72)["test"]}
    runs.write("one", "distillation", logits=better_on_test, temperature=1)
    runs.write("two", "distillation", logits=better_on_validation, temperature=2)
    text = words(page(runs.folder))
    assert "validation chose distillation temperature=2" in text
    assert "Highlighted: distillation temperature=2, the best by validation." in text
    with (runs.folder / "report" / "figures" / "heat-map-1.csv").open() as file:
        (best,) = [row["temperature"] for row in csv.DictReader(file) if row["best"] == "True"]
    assert best == "2.0"


def test_one_seed_says_nothing_of_others(runs):
    for seed in (0, 1):
        runs.write(f"alone-{seed}", "supervised", 0.62, seed=seed)
        runs.write(f"taught-{seed}", "distillation", 0.80, seed=seed)
        text = words(page(runs.folder))
        assert ("decided: other test rows are expected to show a gain too. One seed does not show" in text) == (
            not seed
        )
    assert "decided: other test rows and other seeds are expected to show a gain too." in text


def test_a_student_that_is_slower_or_larger_than_its_teacher_is_not_called_faster_or_smaller(runs):
    paths = [runs.write("alone", "supervised", 0.72), runs.write("taught", "distillation", 0.80)]
    assert "faster than the teacher, one text on the CPU" in words(page(runs.folder))
    for path in paths:
        metrics = json.loads((path / "metrics.json").read_text())
        latency = {name: metrics["latency"][name] / 1.25 for name in ("p50_ms", "p95_ms")}
        total = metrics["parameters"]["total"] / 2
        metrics["teacher_cost"] |= {"latency": latency, "parameters": {"total": total, "without_embeddings": total}}
        write_json(path / "metrics.json", metrics)
    text = words(page(runs.folder))
    assert (
        "slower than the teacher, one text on the CPU 1.25×" in text and "more parameters than the teacher 2×" in text
    )
    assert "faster than" not in text and "fewer parameters" not in text


def test_readings_of_the_test_split_are_counted(runs):
    runs.write("alone", "supervised")
    again = RunDirectory(runs.write("taught", "distillation"))
    again.record_test_read(command="kd evaluate")
    again.record_test_read(command="kd evaluate")
    text = words(page(runs.folder))
    assert "was read 4 times: once by each of 2 runs, after training, and 2 times more" in text


def test_a_missing_baseline_is_named_with_its_command(runs, capsys):
    hydra = ["method=distillation", "student=dan", "temperature=4", "loss=[soft_target]", "balance/alpha=linear"]
    for seed in (0, 1, 2):
        path = runs.write(f"taught-{seed}", "distillation", seed=seed, temperature=4)
        (path / ".hydra").mkdir()
        said = [*hydra, f"seed={seed}", "data.label_names=[bad,good]", "hydra.run.dir=x"]
        (path / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(said))
    runs.write("alone-1", "supervised", seed=1)
    assert main(["report", str(runs.folder)]) == 0
    command = "kd train -m method=supervised student=dan 'data.label_names=[bad,good]' seed=0,2"
    assert command in capsys.readouterr().out
    text = words((runs.folder / "report" / "index.html").read_text()).replace("&#39;", "'")
    assert command in text and "distillation" in text
    (row,) = table(runs.folder, "missing-baselines")
    assert row["seeds"] == "0, 2" and row["command that trains the baseline"] == command


def test_jobs_that_failed_or_are_missing_are_named(runs):
    runs.write("jobs/0", "supervised")
    (runs.folder / "jobs" / "1").mkdir()
    RunDirectory(runs.folder / "jobs" / "1").set_status("failed", reason="out of memory")
    (runs.folder / "lone").mkdir()
    RunDirectory(runs.folder / "lone").set_status("running")
    (runs.folder / "jobs" / "5").mkdir()
    RunDirectory(runs.folder / "jobs" / "5").set_status("pruned", reason="behind")
    runs.write("jobs/6", "supervised", seed=6)
    job = lambda number, state, **more: {  # noqa: E731
        **{"number": number, "overrides": [f"seed={number}"], "directory": f"jobs/{number}", "state": state},
        **{"reason": None, "log": None, **more},
    }
    write_json(
        runs.folder / "sweep.json",
        {
            "format": 1,
            "command": ["kd", "train", "-m", "seed=0,1,2,3"],
            "jobs": [
                job(0, "done"),
                job(1, "failed", reason="killed: out of memory", log="jobs/1/train.log"),
                job(2, "waiting"),
                job(3, "done"),
                job(4, "failed", directory="jobs/1"),
                job(5, "pruned", reason="behind"),
                job(6, "failed", reason="trained again since"),
            ],
        },
    )
    text = words(page(runs.folder))
    assert "4 runs not in the tables" in text
    left_out = {row["run"]: row for row in table(runs.folder, "left-out")}
    assert left_out["seed=1"]["state"] == "failed" and left_out["seed=1"]["reason"] == "killed: out of memory"
    assert left_out["seed=1"]["log"].endswith("jobs/1/train.log")
    assert left_out["seed=2"]["state"] == "not started"
    assert left_out["seed=3"]["state"] == "missing"
    assert left_out[str(runs.folder / "lone")]["state"] == "not finished"
    assert len(left_out) == 4, "a run that two jobs share once, one that is done since not at all"
    assert "made by kd train -m seed=0,1,2,3" in text
    assert "1 run ended early, because other trials of the search were better" in text.replace("&#39;", "'")


def test_the_command_of_a_job_is_told_as_a_single_run(runs):
    """Copied out of its sweep, or trained by kd reproduce."""
    job, again = runs.write("job", "supervised"), runs.write("again", "supervised", seed=1)
    said = ["kd", "train", "--config-name", "config", "--config-path", "/somewhere/conf", "--config-dir", "/my"]
    said += ["hydra.launcher.slots=2", "student=dan", "seed=0", "hydra.mode=RUN", "hydra.run.dir='/x'"]
    write_json(job / "environment.json", RunDirectory(job).environment() | {"command": said})
    reproduced = {"command": ["/somewhere/bin/kd", "reproduce", "one"]}
    write_json(again / "environment.json", RunDirectory(again).environment() | reproduced)
    for _ in range(2):
        page(runs.folder)
        commands = (runs.folder / "report" / "report.md").read_text().split("```")[1]
        assert commands == "\nkd reproduce one\nkd train --config-dir /my student=dan seed=0\n"
        (job / ".hydra").mkdir(exist_ok=True)
        (job / ".hydra" / "overrides.yaml").write_text("[student=dan, seed=0]")


def test_the_heat_map_shows_small_differences_as_small(runs):
    """Settings that share the best accuracy are all framed; the colours span two points at least."""
    logits = runs.answers(0.75)
    sharper = {name: 2 * values for name, values in logits.items()}
    worse = {name: values.copy() for name, values in logits.items()}
    right = next(iter(np.flatnonzero(logits["validation"].argmax(1) == runs.labels["validation"])))
    worse["validation"][right] = worse["validation"][right][::-1]
    for temperature, answered in enumerate((logits, sharper, worse), start=1):
        runs.write(str(temperature), "distillation", logits=answered, temperature=temperature)
    text = words(page(runs.folder))
    assert "1 setting more (dashed) has the same accuracy" in text and "span at least 2 points" in text
    with (runs.folder / "report" / "figures" / "heat-map-1.csv").open() as file:
        rows = list(csv.DictReader(file))
    (chosen,) = [row["temperature"] for row in rows if row["best"] == "True"]
    assert f"validation chose distillation temperature={chosen[0]}" in text, "by the same rule"
    svg = (runs.folder / "report" / "figures" / "heat-map-1.svg").read_text()
    depths = sorted({float(found) for found in re.findall(r"opacity: (0\.\d+)", svg)})
    assert depths[-1] - depths[0] < 0.2


@pytest.mark.parametrize(
    "found", ['{"format": 1, "jobs": [', '{"jobs": 7}', '{"jobs": [{"state": "done", "log": 7}, 3]}']
)
def test_a_sweep_file_that_cannot_be_read_is_no_obstacle(runs, found):
    (runs.write("one", "supervised") / "test_reads.jsonl").write_bytes(b"\xff\n")
    (runs.folder / "sweep.json").write_text(found)
    assert "No run here learnt from a teacher" in words(page(runs.folder))


@pytest.mark.parametrize("flaw", [None, "logits", "not promised"])
def test_runs_that_should_agree(runs, flaw):
    logits = runs.answers(0.75)
    runs.write("first", "supervised", logits=logits)
    other = {name: values.copy() for name, values in logits.items()}
    if flaw:
        other["test"][3] += np.array([1e-3, 0], dtype=np.float32)
    trainer = CONFIG["trainer"] | {"deterministic": flaw != "not promised"}
    runs.write("second", "supervised", logits=other, trainer=trainer)
    text = words(page(runs.folder))
    if flaw == "logits":
        assert (
            "Should be equal and are not" in text
            and "The logits of 1 row differ (by up to 0.001), the labels of 0" in text
        )
        assert "first" in text and "second" in text
    elif flaw:
        assert "are not" not in text.split("Reproducibility")[-1]
    else:
        assert "1 further run of the same configuration, seed, machine and software" in text


def test_a_mixed_folder(runs, capsys):
    """Two test sets, two students, a run that diverged, a cut one: each in its place."""
    runs.grid(seeds=(0,))
    runs.write("bilstm", "distillation", of_choices={"student": "bilstm"})
    Runs(runs.folder / "others").write("a", "distillation", data="other rows", of_choices={"data": "sst2"})
    diverged = runs.answers(0.7)
    diverged["test"][0] = np.nan
    runs.write("diverged", "distillation", logits=diverged, temperature=7)
    runs.write("cut", "distillation", temperature=8)
    (runs.folder / "cut" / "metrics.json").write_text("{")
    assert main(["report", str(runs.folder)]) == 0
    assert "found 2 that are not" in capsys.readouterr().err
    text = words((runs.folder / "report" / "index.html").read_text())
    assert "2 test sets: bilstm, dan on reviews and dan on sst2" in text
    assert {row["state"] for row in table(runs.folder, "left-out")} == {"damaged"}
    assert (runs.folder / "report" / "tables" / "2-results.csv").is_file()


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("metrics", "latency", {}),
        ("metrics", "parameters", None),
        ("metrics", "teacher_cost", {"name": "big"}),
        ("metrics", "student", None),
        ("metrics", "training_seconds", "long"),
        ("metrics", "validation", None),
        ("environment", "teacher", {}),
        ("environment", "data", {}),
    ],
)
def test_a_run_that_lacks_a_figure_is_left_out(runs, file, key, value, capsys):
    runs.grid(seeds=(0,))
    path = runs.folder / "alone-0" / f"{file}.json"
    write_json(path, json.loads(path.read_text()) | {key: value})
    assert main(["report", str(runs.folder)]) == 0
    assert "alone-0' is damaged" in capsys.readouterr().err
    assert [row["state"] for row in table(runs.folder, "left-out")] == ["damaged"]


def test_a_run_with_other_rows_than_its_checksum_says_is_left_out(runs, capsys):
    runs.grid(seeds=(0,))
    predictions = RunDirectory(runs.folder / "alone-0").predictions_file
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(predictions).slice(0, 1500), predictions)
    assert main(["report", str(runs.folder)]) == 0
    assert "expected the test labels of the other runs" in capsys.readouterr().err


@pytest.mark.parametrize("lacking", ["curves", "validation", "teacher"])
def test_runs_that_lack_something_are_still_shown(runs, lacking):
    runs.grid(seeds=(0,))
    for path in runs.folder.iterdir():
        run = RunDirectory(path)
        if lacking == "curves":
            (path / "metrics.csv").unlink()
            continue
        rows = pyarrow.parquet.read_table(run.predictions_file)
        if lacking == "teacher":
            rows = rows.drop_columns(["teacher_logits"])
            write_json(path / "environment.json", run.environment() | {"teacher": None})
            write_json(run.metrics_file, {key: v for key, v in run.metrics().items() if key != "teacher_cost"})
        else:
            rows = rows.filter(pyarrow.compute.equal(rows["split"], "test"))
            write_json(run.metrics_file, {key: v for key, v in run.metrics().items() if key != "validation"})
        pyarrow.parquet.write_table(rows, run.predictions_file)
    text = words(page(runs.folder))
    assert "Results" in text
    if lacking == "validation":
        assert "so it could not choose" in text and "Highlighted" not in text
    if lacking == "teacher":
        assert "Gain of the peers over supervised training" in text and "Agreement with the teacher" not in text


def test_names_from_a_folder_are_not_markup(runs):
    path = runs.write("one", "supervised")
    environment = RunDirectory(path).environment()
    write_json(path / "environment.json", environment | {"command": ["kd", "train", "x=<script>alert(1)</script>"]})
    html = page(runs.folder)
    assert "<script>alert" not in html and "&lt;script&gt;alert" in html


def test_a_place_that_holds_something_else_is_left_alone(runs, capsys):
    runs.write("one", "supervised")
    mine = runs.folder.parent / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    assert main(["report", str(runs.folder), "--out", str(mine)]) == 2
    assert "expected an empty folder or an earlier report" in capsys.readouterr().err
    assert (mine / "thesis.txt").read_text() == "years of work"


def test_killed_while_the_earlier_report_goes_it_is_written_again(runs, monkeypatch):
    """A folder that is removed in any order is no report at some moment, and may not stand in the report's place."""
    runs.write("one", "supervised")
    place = runs.folder.parent / "report"
    write_report([runs.folder], place)

    def half_removed(folder, ignore_errors=False):
        for mark in Path(folder).rglob(".kd-report"):
            mark.unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr("kd.report.page.shutil.rmtree", half_removed)
        with pytest.raises(KeyboardInterrupt):
            write_report([runs.folder], place)
    assert write_report([runs.folder], place).is_file()
    assert [path.name for path in place.parent.glob(".report*")] == []


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser here ({', '.join(BROWSERS)}): the page was not looked at")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: see the dev extra")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture(scope="module")
def grid_page(tmp_path_factory) -> Path:
    runs = Runs(tmp_path_factory.mktemp("page") / "runs")
    runs.grid()
    runs.write("bilstm", "distillation", of_choices={"student": "bilstm"})  # a missing baseline with its long command
    return write_report([runs.folder], runs.folder / "report")


@pytest.fixture
def opened(browser, grid_page):
    """A function that opens the page, and what went wrong with the pages that it opened."""
    troubles, contexts = [], []

    def open_page(width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        shown = context.new_page()
        shown.on("console", lambda message: troubles.append(message.text))
        shown.on("pageerror", lambda error: troubles.append(str(error)))
        shown.on("request", lambda request: request.url == grid_page.as_uri() or troubles.append(request.url))
        shown.goto(grid_page.as_uri())
        return shown

    yield open_page
    for context in contexts:
        context.close()
    assert not troubles, "no error on the console, and nothing fetched but the page itself"


def column(shown, number: int) -> list[str]:
    """Of the first table."""
    return shown.locator(".sheet").first.locator(f"tbody tr > :nth-child({number})").all_inner_texts()


def test_tables_sort_on_click(opened):
    shown = opened()
    head = shown.locator(".sheet").first.locator("thead th").nth(3)
    before = column(shown, 4)
    head.locator("button").click()
    rising = [float(text) for text in column(shown, 4)]
    assert rising == sorted(rising) and sorted(map(float, before)) == rising
    assert head.get_attribute("aria-sort") == "ascending"
    head.locator("button").press("Enter")
    assert [float(text) for text in column(shown, 4)] == rising[::-1]
    assert head.get_attribute("aria-sort") == "descending"
    shown.locator(".sheet").first.locator("thead th").nth(8).locator("button").click()
    gaps = [text != "" for text in column(shown, 9)]
    assert gaps == sorted(gaps, reverse=True), "rows without a figure come last"


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_nothing_runs_over_the_edge(opened, width):
    shown = opened(width)
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    wide = shown.evaluate("[...document.querySelectorAll('figure svg')].map(e => e.getBoundingClientRect().right)")
    assert wide and max(wide) <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_table_that_goes_on_beyond_the_edge_shows_it(opened, scheme):
    """A shadow at its right edge, until it is scrolled to the end; none where all of it is seen."""
    shown = opened(390, scheme)
    sheet = shown.locator(".sheet").first
    sheet.scroll_into_view_if_needed()
    assert edge(shown, sheet) != ground(shown)
    sheet.evaluate("e => e.scrollLeft = e.scrollWidth")
    assert edge(shown, sheet) == ground(shown)
    shown.set_viewport_size({"width": 1280, "height": 900})
    assert edge(shown, sheet) == ground(shown)


def edge(shown, sheet) -> tuple[int, ...]:
    """The commonest colour along the last pixels of an element on the right."""
    box = sheet.bounding_box()
    strip = {"x": box["x"] + box["width"] - 1, "y": box["y"], "width": 1, "height": box["height"]}
    pixels = Image.open(BytesIO(shown.screenshot(clip=strip))).convert("RGB")
    return max(pixels.getcolors())[1]


def test_light_and_dark(opened):
    grounds, inks = zip(*(colours(opened(scheme=scheme)) for scheme in ("light", "dark")), strict=True)
    assert sum(grounds[0]) > 700 and sum(grounds[1]) < 120
    assert sum(inks[0]) < 200 and sum(inks[1]) > 600, "the letters in a figure follow"


def colours(shown) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """RGB of the ground and of a figure's letters."""
    return ground(shown), rgb(shown.evaluate("getComputedStyle(document.querySelector('figure svg text')).fill"))


def ground(shown) -> tuple[int, ...]:
    return rgb(shown.evaluate("getComputedStyle(document.body).backgroundColor"))


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", colour)[:3])


def test_headings_do_not_skip_a_level_and_figures_are_told(opened):
    shown = opened()
    levels = shown.evaluate("[...document.querySelectorAll('h1,h2,h3,h4,h5')].map(e => Number(e.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    labels = shown.evaluate("[...document.querySelectorAll('figure svg')].map(e => e.getAttribute('aria-label'))")
    assert labels and all(labels)
    ids = shown.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids)), "figures in one page do not share names"


def test_it_prints(opened):
    """Black on white whatever the screen, and no table wider than the paper: A4 less its margins is 688 px wide."""
    shown = opened(688, scheme="dark")
    shown.emulate_media(media="print")
    paper, ink = colours(shown)
    assert sum(paper) > 700 and sum(ink) < 200
    assert (
        max(shown.evaluate("[...document.querySelectorAll('table')].map(e => e.getBoundingClientRect().right)")) <= 688
    )
