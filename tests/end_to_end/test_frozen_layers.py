"""The lowest layers of a teacher in joint training: frozen, and once for all where the cache holds their output."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from kd.data.batching import Ragged
from kd.errors import KDError
from kd.features.feature import Feature
from kd.models.pretrained import freeze_lowest, upper_part
from kd.run.directory import RunDirectory
from tests.end_to_end.test_methods import data_options, run_kd, stored_columns, stored_teacher, teachers, trained
from tests.methods.test_base import fit, make_split
from tests.methods.test_joint import joint

__all__ = ["data_options", "teachers", "trained"]  # fixtures

SIZES = {"vocab_size": 50, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
KINDS = {
    "bert": {**SIZES, "num_hidden_layers": 3},
    "roberta": {**SIZES, "num_hidden_layers": 3, "max_position_embeddings": 40},
    "distilbert": {"vocab_size": 50, "dim": 16, "n_heads": 2, "hidden_dim": 32, "n_layers": 3},
    "deberta-v2": {**SIZES, "num_hidden_layers": 3},
    "electra": {**SIZES, "num_hidden_layers": 3, "embedding_size": 16},
}


def make(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(AutoConfig.for_model(kind, **KINDS[kind]))


@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_the_upper_part_says_what_the_whole_says_and_shares_its_weights(kind, layers):
    whole = make(kind).eval()
    before = copy.deepcopy(whole.state_dict())
    upper = upper_part(whole, layers)
    ids, mask = torch.arange(3, 21).reshape(3, 6), torch.ones(3, 6, dtype=torch.long)
    mask[1, 4:] = 0
    answer = whole(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    states = answer.hidden_states[layers].detach()
    torch.testing.assert_close(upper(inputs_embeds=states, attention_mask=mask).logits, answer.logits)

    own, of_whole = {id(p) for p in upper.parameters()}, {id(p): name for name, p in whole.named_parameters()}
    lower = whole.get_input_embeddings().weight
    assert own < of_whole.keys() and id(lower) not in own
    assert len(whole.state_dict()) == len(before), "the whole stays whole"
    freeze_lowest(whole, layers)
    assert layers == 0 or {id(p) for p in whole.parameters() if p.requires_grad} == own
    with torch.no_grad():
        for parameter in upper.parameters():
            parameter += 0.01
    after = whole(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(upper(inputs_embeds=states, attention_mask=mask).logits, after)
    assert not torch.allclose(after, answer.logits)


def test_what_does_not_come_apart_is_refused():
    with pytest.raises(KDError, match=r"the teacher has 3 layers, got 4; give 0 to 3"):
        upper_part(make("bert"), 4)
    config = AutoConfig.for_model("albert", **SIZES, num_hidden_layers=3, embedding_size=8)
    with pytest.raises(KDError, match=r"frozen_layers=2: 'albert' .*set it to 0"):
        upper_part(AutoModelForSequenceClassification.from_config(config), 2)
    with pytest.raises(KDError, match=r"'deberta-v2' cannot go on .*; set cache.use=false"):
        upper_part(make("deberta-v2"), 3)  # its encoder needs a layer
    narrow = AutoConfig.for_model("electra", **SIZES, num_hidden_layers=3, embedding_size=8)
    with pytest.raises(KDError, match=r"'electra' cannot go on from the output .*; set cache.use=false"):
        upper_part(AutoModelForSequenceClassification.from_config(narrow), 2)


@pytest.mark.parametrize("clean_targets", [True, False])
def test_from_cached_states_it_trains_as_the_whole_teacher_does(clean_targets):
    torch.manual_seed(1)
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    whole = BertForSequenceClassification(BertConfig(**KINDS["bert"], **still)).eval()
    freeze_lowest(whole, 2)
    feature, split = Feature("hidden_states", 2), make_split()
    batch = split[list(range(len(split)))]
    with torch.no_grad():
        states = whole(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=True
        ).hidden_states[2]
    values = np.concatenate([row[:length].numpy() for row, length in zip(states, split.tokens.lengths, strict=True)])
    cached = replace(split, columns={f"teacher_{feature.column}": Ragged(values, split.tokens.offsets)})

    def learn(rows, teacher, column):
        method = joint(partners={"teacher": teacher}, partner_alpha=0.5, clean_targets=clean_targets, column=column)
        method.on_fit_start = lambda: None  # the validation rows of these tests carry no columns
        return fit(method, rows, limit_val_batches=0).losses, method

    live, _ = learn(split, copy.deepcopy(whole), None)
    own = copy.deepcopy(whole)
    from_cache, method = learn(cached, upper_part(own, 2), feature.column)
    np.testing.assert_allclose(from_cache, live, rtol=1e-5)
    assert live[-1] != live[0]
    saved = [name for name in method.state_dict() if name.startswith("partners.teacher.")]
    assert not any("embeddings" in name for name in saved) and sum("encoder.layer.0." in name for name in saved)
    assert not any("encoder.layer.1." in name for name in saved), "one layer of three learns and is saved"


COMMANDS = {
    "warm": ["method.keep_partners=true"],
    "cold": ["method.teacher_start=cold", "tokenizer=words", "embeddings=random"],
}


@pytest.mark.parametrize("start", COMMANDS)
def test_joint_training_above_cached_layers_by_command(trained, start, capsys):
    command = [*trained.command("joint"), "method.frozen_layers=1", "cache.use=true", "balance.calibrate=false"]
    place = trained.place / "runs" / f"frozen-{start}"
    assert run_kd("train", *command, *COMMANDS[start], f"hydra.run.dir={place}") == 0
    checkpoint = torch.load(place / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    names = [name for name in checkpoint if name.startswith("partners.")]
    assert names and not any("embeddings" in name for name in names)
    assert "hidden_states-1-tokens" in stored_columns(trained.place)
    run = RunDirectory(place)
    metrics = run.metrics()
    figures = metrics["partners"]["teacher"]
    assert figures["parameters"]["trainable"] < figures["parameters"]["total"]
    assert 0 <= figures["validation_accuracy"] <= 1 and metrics["test"]["teacher"]["accuracy"] >= 0.4
    if start == "warm":
        kept = load_file(place / "partners" / "teacher" / "model.safetensors")
        before = load_file(stored_teacher(trained, run) / "model.safetensors")
        changed = {name for name in before if not torch.equal(before[name], kept[name])}
        assert before.keys() == kept.keys() and changed
        assert not any("embeddings" in name or "layer.0." in name for name in changed)
        assert any("layer.1." in name for name in changed)
