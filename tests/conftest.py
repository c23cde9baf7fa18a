"""What the tests share: a two-layer random BERT, a handful of reviews, one thread."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"  # no test may reach the network

import random
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

torch.set_num_threads(1)
transformers.utils.logging.disable_progress_bar()
transformers.logging.set_verbosity_error()

GOOD = ["wonderful", "charming", "moving", "funny", "brilliant", "warm"]
BAD = ["dull", "clumsy", "tedious", "flat", "awful", "cold"]
NEUTRAL = ["the", "film", "plot", "actors", "story", "is", "and", "a", "very", "quite", "scene", "ending"]


def make_reviews(rows: int, seed: int = 0) -> list[tuple[str, int]]:
    """Texts of 4 to 14 words whose label a bag of words can learn; all texts differ."""
    generator = random.Random(seed)
    reviews: dict[str, int] = {}
    while len(reviews) < rows:
        label = len(reviews) % 2
        words = generator.choices(NEUTRAL, k=generator.randint(3, 12))
        words.insert(generator.randint(0, len(words)), generator.choice((BAD, GOOD)[label]))
        reviews.setdefault(" ".join(words), label)
    return list(reviews.items())


@pytest.fixture(scope="session")
def reviews_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("reviews") / "reviews.csv"
    lines = [f"{text},{('negative', 'positive')[label]}" for text, label in make_reviews(160)]
    path.write_text("\n".join(["text,label", *lines]) + "\n")
    return path


def make_teacher(folder: Path, num_labels: int = 2, seed: int = 0) -> Path:
    """A random BERT of two layers with its tokenizer, saved in a folder."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(c) for c in range(97, 123)]
    pieces = [*specials, *letters, *(f"##{c}" for c in letters), *NEUTRAL, *GOOD, *BAD]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), specials, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        num_labels=num_labels,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory) -> Path:
    return make_teacher(tmp_path_factory.mktemp("teacher"))


def bare_trainer(**options):
    """A Trainer on the CPU that does nothing beside training; options are its own, or in place of these."""
    import lightning

    defaults = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
    }
    return lightning.Trainer(**defaults | options)


def run_kd(*arguments: str) -> int:
    from kd.cli import main

    return main(list(map(str, arguments)))


@pytest.fixture(scope="session")
def common_options(reviews_file, teacher_folder) -> list[str]:
    """What every tiny run has in common."""
    return [
        "data=files",
        f"data.path={reviews_file}",
        "data.label_names=[negative,positive]",
        "data.max_length=24",
        "data.batch_size=16",
        "data.validation_share=0.2",
        "data.test_share=0.2",
        "teacher=hf",
        f"teacher.name_or_path={teacher_folder}",
        "teacher.epochs=8",
        "teacher.batch_size=8",
        "teacher.learning_rate=3e-3",
        "student.embedding_size=16",
        "trainer=cpu",
        "trainer.max_epochs=2",
        "callbacks=[checkpoint]",
        "threads=1",
        "hydra.launcher.report=false",  # seconds a sweep; a test of test_commands.py asks for it
    ]


@pytest.fixture(scope="session")
def fine_tuned(common_options, tmp_path_factory) -> Path:
    """The tiny teacher, fine-tuned once for all tests."""
    outputs = tmp_path_factory.mktemp("fine_tuned")
    assert run_kd("train", *common_options, "student=dan", "method=supervised", f"outputs={outputs}") == 0
    return outputs / "teachers"


@pytest.fixture
def fresh_options(common_options, tmp_path, monkeypatch) -> list[str]:
    """In an empty folder of its own."""
    monkeypatch.chdir(tmp_path)
    return common_options


@pytest.fixture
def options(fresh_options, fine_tuned) -> list[str]:
    """In a folder where the fine-tuned teacher is found."""
    shutil.copytree(fine_tuned, "outputs/teachers")
    return fresh_options


@pytest.fixture(scope="session")
def trained_pair(common_options, fine_tuned, tmp_path_factory) -> Path:
    """A folder with the finished runs of two students of the tiny teacher, dan and mlp."""
    folder = tmp_path_factory.mktemp("trained_pair")
    for student in ("dan", "mlp"):
        own = (f"student={student}", f"outputs={fine_tuned.parent}", f"hydra.run.dir={folder / student}")
        own += ("trainer.max_epochs=12", "optim.optimizer.lr=0.01")
        assert run_kd("train", *common_options, *own) == 0
    return folder


@pytest.fixture
def pair(trained_pair, tmp_path) -> Path:
    """A copy of them that a test may write to."""
    return shutil.copytree(trained_pair, tmp_path / "pair")
