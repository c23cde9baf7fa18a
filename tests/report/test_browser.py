"""The page as a real browser shows it."""

import re
import shutil
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from kd.report import write_report
from tests.report.written import (
    Runs,
)

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"),
    *("--disable-component-update", "--disable-sync"),
)


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
    shown.locator(".sheet").first.locator("thead th").nth(7).locator("button").click()
    gaps = [text != "" for text in column(shown, 8)]
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
