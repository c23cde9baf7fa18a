"""From files and from the hub to splits, and mistakes in their options."""

from pathlib import Path

import datasets
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from kd.config import build
from kd.data import sources
from kd.data.sources import from_files, from_files_or_hub, from_hub
from kd.errors import KDError
from tests.data.writing import NAMES, assert_adds_up, contents, raw, reviews, write

CONF = Path(__file__).parents[2] / "conf"


DATA_SETS = sorted(path.stem for path in (CONF / "data").glob("*.yaml"))


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet", "a.csv.gz", "a.tsv.gz", "a.jsonl.gz"])
def test_formats_hold_the_same(tmp_path, name):
    rows = reviews(200)
    splits = from_files(str(write(tmp_path / name, rows)), label_names=NAMES)
    assert_adds_up(splits)
    assert set().union(*contents(splits).values()) == {(row["text"], row["label"]) for row in rows}
    shares = [len(split) / 200 for split in (splits.train, splits.validation, splits.test)]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.07)
    assert splits.train.column_names == ["text", "label", "line"]
    assert [str(kind.dtype) for kind in splits.train.features.values()] == ["string", "int64", "int64"]
    start = 1 if name.split(".")[1] in ("jsonl", "parquet") else 2
    for row in splits.train:
        assert rows[row["line"] - start]["text"] == row["text"]


def test_a_text_of_a_million_characters(tmp_path):
    rows = [*reviews(100), {"text": "ab " * 400_000, "label": 1}]
    for name in ("a.csv", "a.tsv", "a.jsonl"):
        splits = from_files(str(write(tmp_path / name, rows)))
        assert max(len(text) for texts in contents(splits).values() for text, _ in texts) == 1_200_000


def test_another_encoding(tmp_path):
    data = "text,label\n" + "".join(f"très bien {i},{i % 2}\n" for i in range(100))
    splits = from_files(str(raw(tmp_path / "a.csv", data.encode("latin-1"))), encoding="latin-1")
    assert splits.train[0]["text"].startswith("très")
    splits = from_files(str(raw(tmp_path / "b.csv", data.encode("utf-16"))), encoding="utf-16")
    assert splits.train[0]["text"].startswith("très")


def test_where_keeps_the_rows_asked_for(tmp_path):
    rows = [{**row, "source": "abc"[i % 3], "stars": i % 5} for i, row in enumerate(reviews(300))]
    path = str(write(tmp_path / "a.parquet", rows))
    assert from_files(path, where={"source": "a"}).counts["used"] == 100
    splits = from_files(path, where={"source": ["a", "b"], "stars": 1})
    assert (splits.counts["used"], splits.counts["filtered"]) == (40, 260)
    assert_adds_up(splits)


def test_a_glue_folder(tmp_path):
    write(tmp_path / "train.tsv", reviews(100))
    write(tmp_path / "dev.tsv", reviews(10, first=500))
    raw(tmp_path / "test.tsv", "index\ttext\n0\thidden\n")
    splits = from_files(str(tmp_path))
    assert len(splits.test) == 10 and splits.counts["splits"]["test"]["rows"] == 10
    assert len(splits.train) + len(splits.validation) == 100
    assert splits.counts["read"] == 110
    # Hidden labels, then real ones: only then is dev the validation split.
    raw(tmp_path / "test.tsv", "text\tlabel\nhidden\t-1\n")
    assert from_files(str(tmp_path)).counts["read"] == 110
    write(tmp_path / "test.tsv", reviews(20, first=700))
    splits = from_files(str(tmp_path))
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [100, 10, 20]


@pytest.mark.parametrize(
    ("name", "data", "arguments", "message"),
    [
        ("a.csv", "review,label\nx,1\n", {}, r"no column 'text'; it has 'review', 'label'; set data.text"),
        ("a.csv", "text,stars\nx,1\n", {}, r"no column 'label'; it has 'text', 'stars'; set data.label"),
        ("a.csv", "text,label\nx,1\n", {"where": {"lang": "en"}}, r"no column 'lang'; .*data.where"),
        (
            "a.csv",
            "text,label\nx,2\n",
            {"label_names": NAMES},
            r"line 2: label '2' is neither .*'negative', 'positive'",
        ),
        ("a.csv", "text,label\nx,good\n", {"label_names": NAMES}, r"label 'good' .*an id from 0 to 1"),
        ("a.csv", "text,label\nx,1\n", {"label_names": ["a"]}, r"expected at least two names"),
        ("a.csv", "text,label\nx,1\n", {"label_names": ["a", "a"]}, r"each once"),
        ("a.csv", "text,label\nx,1\ny,1\n", {}, r"at least two different labels, found '1'"),
        ("a.csv", "text,label\n", {"label_names": NAMES}, r"the train split is empty: .*0 rows were read"),
        ("a.csv", "text,label\n ,1\n", {"label_names": NAMES}, r"split is empty: .*left out: 1 empty"),
        ("a.csv", "text,label\nx,1\n", {"test_share": 0.5, "validation_share": 0.5}, r"sum is below 1"),
        ("a.csv", "text,label\nx,1\n", {"limit": 0}, r"limit must be a whole number of at least 1 or null, found 0"),
    ],
)
def test_bad_input_gets_one_clear_sentence(tmp_path, name, data, arguments, message):
    with pytest.raises(KDError, match=message) as caught:
        from_files(str(raw(tmp_path / name, data)), **arguments)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(KDError, match=r"there is no file .*none\.csv; check the path"):
        from_files(str(tmp_path / "none.csv"))
    with pytest.raises(KDError, match=r"has no train file: .*found nothing"):
        from_files(str(tmp_path))
    with pytest.raises(KDError, match=r"expected either data.path .* found neither"):
        from_files()
    with pytest.raises(KDError, match="found both"):
        from_files("a.csv", train="b.csv")
    write(tmp_path / "train.csv", reviews(10))
    write(tmp_path / "train.tsv", reviews(10))
    with pytest.raises(KDError, match=r"expected one train file .* found train.csv, train.tsv"):
        from_files(str(tmp_path))


# The hub, which no test reaches


@pytest.fixture
def hub(monkeypatch):
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )

    def split(rows: int, first: int, label: int | None = None) -> datasets.Dataset:
        columns = {
            "sentence": [f"sentence {i}" for i in range(first, first + rows)],
            "label": [i % 2 if label is None else label for i in range(rows)],
        }
        return datasets.Dataset.from_dict(columns, features=features)

    asked = []
    loaded = datasets.DatasetDict(train=split(100, 0), validation=split(10, 95), test=split(10, 500, label=-1))
    monkeypatch.setattr(
        sources.datasets, "load_dataset", lambda *given, **options: asked.append((*given, options)) or loaded
    )
    return asked


@pytest.mark.parametrize("splits", [None, {"train": "train", "validation": None, "test": "validation"}])
def test_dev_is_the_test_split_where_the_hub_hides_the_labels(hub, splits):
    found = from_hub("org/data", text="sentence", splits=splits)
    assert found.label_names == ["bad", "good"]
    assert found.test["text"][:] == [f"sentence {i}" for i in range(95, 105)]
    assert len(found.train) + len(found.validation) == 95
    assert found.counts["lines"]["removed_from_train"] == [f"org/data/train:{i}" for i in range(96, 101)]
    assert_adds_up(found)


def test_a_transfer_set_is_read_beside_rows_from_the_hub(hub, tmp_path):
    path = write(tmp_path / "more.csv", [{"sentence": text} for text in ("a new text", "sentence 3", "sentence 97")])
    options = {"hub": "org/data", "text": "sentence", "unlabelled": str(path), "encoding": "utf-8"}
    found = from_files_or_hub(**options)
    assert found.counts["unlabelled"] == 1 and found.train["text"][-1] == "a new text"
    assert from_files_or_hub(**options, stream=True).counts["unlabelled"] == 0, "shards are read later"


def test_hub_mistakes(hub, monkeypatch):
    with pytest.raises(KDError, match=r"no column 'text'; it has 'sentence', 'label'; set data.text"):
        from_hub("org/data")
    with pytest.raises(KDError, match=r"has the splits train, validation, test; .*found dev in data.hub_splits"):
        from_hub("org/data", text="sentence", splits={"train": "train", "test": "dev"})
    with pytest.raises(KDError, match=r"data\.where cannot be used with org/data from the hub"):
        from_files_or_hub(hub="org/data", text="sentence", where={"a": 1})

    def unreachable(*given, **options):
        raise ConnectionError("Couldn't reach it\nlong story")

    monkeypatch.setattr(sources.datasets, "load_dataset", unreachable)
    with pytest.raises(KDError, match=r"cannot load org/data .*Couldn't reach it\); .*set data.path=") as caught:
        from_hub("org/data")
    assert "\n" not in str(caught.value)


# conf/data


@pytest.mark.parametrize("name", DATA_SETS)
def test_every_data_set_composes_and_reads_a_file_of_its_columns(name, tmp_path, hub):
    rows = [
        {"text": f"t {i}", "sentence": f"t {i}", "review": f"t {i}", "label": i % 2, "source": name} for i in range(200)
    ]
    path = write(tmp_path / "a.csv", rows)
    with initialize_config_dir(str(CONF / "data"), version_base="1.3"):
        config = compose(name, overrides=[f"path='{path}'", "label_names=[negative,positive]", "limit=150"])
    assert config.name == name
    assert config.max_length > 0 and config.batch_size > 0
    splits = build.splits(OmegaConf.create({"data": config}))
    assert splits.counts["used"] == 150
    assert splits.label_names == NAMES


def test_sst2_without_a_path_comes_from_the_hub(hub):
    with initialize_config_dir(str(CONF / "data"), version_base="1.3"):
        config = compose("sst2")
    assert len(build.splits(OmegaConf.create({"data": config})).test) == 10
    assert hub == [("stanfordnlp/sst2", None, {"revision": "8d51e7e4887a4caaa95b3fbebbf53c0490b58bbb"})]
