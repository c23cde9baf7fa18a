"""Texts from a causal language model: a tiny Llama that learns the words of each class."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from kd.errors import KDError
from kd.transfer.causal_lm import TEXTS_AT_ONCE, CausalLm
from kd.transfer.choosing import choose
from kd.transfer.parts import make_parts, texts_of
from kd.transfer.recipe import Known, TransferRecipe
from tests.conftest import BAD, GOOD, NEUTRAL, run_kd


@pytest.fixture(scope="module")
def generator(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("generator")
    tokens = ["<unk>", "</s>", ":", "negative", "positive", *NEUTRAL, *GOOD, *BAD]
    backend = Tokenizer(models.WordLevel({token: number for number, token in enumerate(tokens)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>").save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokens), eos_token_id=1, bos_token_id=None, pad_token_id=None, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def step(generator):
    return CausalLm(path=str(generator), texts=100, steps=60, learning_rate=1e-2, tokens=20)


@pytest.fixture(scope="module")
def named(splits):
    return Known.of(splits)


@pytest.fixture(scope="module")
def learnt(step, named):
    return step.fine_tuned(named.train, 0)


@pytest.fixture
def made(step, named, learnt, tmp_path, monkeypatch):
    monkeypatch.setattr(CausalLm, "fine_tuned", lambda *_: learnt)
    return make_parts("causal_lm", step, named.train, 0, tmp_path / "parts")


def test_the_seed_decides_the_fine_tuning(step, named, learnt):
    again = dict(step.fine_tuned(named.train, 0)[0].named_parameters())
    assert all(torch.equal(value, again[name]) for name, value in learnt[0].named_parameters())


def test_each_class_is_asked_for_its_own_words(made):
    words = [Counter(" ".join(texts_of([part])).split()) for part in made]
    assert len(made) == 2, "100 texts are two batches"
    bad, good = ([sum(found[word] for word in each) for found in words] for each in (BAD, GOOD))
    assert bad[0] > 3 * good[0] and good[1] > 3 * bad[1]
    assert len(list(texts_of(made))) <= 2 * TEXTS_AT_ONCE


def test_a_larger_number_keeps_the_parts_and_the_seed_decides(step, generator, named, made, tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    shutil.copy(made[0], folder)  # as after an interruption
    larger = CausalLm(path=str(generator), texts=130, tokens=20)
    again = make_parts("causal_lm", larger, named.train, 0, folder)
    assert len(again) == 3
    assert list(texts_of(again[:2])) == list(texts_of(made))
    keys = {
        TransferRecipe({"a": each}, {"a": {"texts": each.texts}}, 0, None, "text").key_of_step("a", named)
        for each in (step, larger)
    }
    assert len(keys) == 1
    texts = next(iter(larger.parts(named.train, 1)))
    assert list(texts) != list(texts_of(made[:1]))


@pytest.mark.usefixtures("made")
def test_a_generator_that_repeats_itself_is_refused(generator, named, tmp_path):
    same = CausalLm(path=str(generator), texts=200, top_p=0.01)
    files = make_parts("causal_lm", same, named.train, 0, tmp_path / "same")
    recipe = TransferRecipe({"causal_lm": same}, {"causal_lm": {}}, 0, None, "text")
    with pytest.raises(KDError, match=r"expected different texts, found .* that repeat others"):
        choose(recipe, named, {"causal_lm": files})


def test_a_run_learns_from_its_texts_and_an_encoder_is_refused(options, generator, teacher_folder, capsys):
    step = ["transfer=[causal_lm]", "transfer.causal_lm.steps=20", "transfer.causal_lm.texts=64"]
    step += ["transfer.causal_lm.learning_rate=0.01", f"transfer.causal_lm.path={generator}"]
    assert run_kd("train", *options, *step, "student=dan", "hydra.run.dir=run") == 0
    assert "transfer set: " in capsys.readouterr().out
    assert run_kd("train", *options, *step[:2], f"transfer.causal_lm.path={teacher_folder}") == 2
    assert "expected a causal language model" in capsys.readouterr().err
