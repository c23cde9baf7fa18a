"""The recorded queries, keys and values give the attention maps, and recording changes nothing else."""

import copy
import threading

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

import kd.models  # noqa: F401 (registers the students)
from kd.errors import KDError
from kd.features import attention as recording

LAYERS, HEADS, WIDTH = 3, 2, 8
SIZES = {
    "vocab_size": 20,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
    "pad_token_id": 1,
}
ARCHITECTURES = {
    "bert": {},
    "distilbert": {"dim": WIDTH, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": 16},
    "roberta": {},
    "electra": {"embedding_size": 6},
    "albert": {"embedding_size": 6},
    "esm": {"position_embedding_type": "rotary"},  # scales its queries before it rotates them
    "eurobert": {"num_key_value_heads": 1},  # heads share keys and values
}
SIZES_AS_NAMED = {"distilbert": {"vocab_size": 20, "max_position_embeddings": 16, "pad_token_id": 1}}

INPUTS = {
    "input_ids": torch.tensor([[3, 4, 5, 6, 7], [8, 9, 2, 1, 1]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
}
every_architecture = pytest.mark.parametrize("kind", ARCHITECTURES)


def build(kind, implementation="sdpa", **options):
    torch.manual_seed(0)
    sizes = {**SIZES_AS_NAMED.get(kind, SIZES), **ARCHITECTURES.get(kind, {}), **options}
    config = AutoConfig.for_model(kind, **sizes)
    # larger weights than the default of 0.02, so that attention maps are far from uniform
    config.initializer_range = 1.0
    return AutoModelForSequenceClassification.from_config(config, attn_implementation=implementation).eval()


def prepared(kind="bert", **options):
    model = build(kind, **options)
    recording.prepare(model)
    return model


def maps(triples, mask):
    """Compute the attention maps from the equation."""
    hidden = (mask == 0)[:, None, None, :]
    return [
        (q.double() @ k.double().transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(hidden, -torch.inf).softmax(-1)
        for q, k, _ in triples
    ]


@every_architecture
def test_recorded_triples_give_the_attention_maps(kind):
    model = prepared(kind)
    eager = build(kind, "eager")
    eager.load_state_dict(model.state_dict())
    with torch.no_grad():
        expected = eager(**INPUTS, output_attentions=True)
        output, triples = recording.recorded(model, **INPUTS)
    assert len(triples) == len(expected.attentions) == LAYERS
    for attention, seen in zip(maps(triples, INPUTS["attention_mask"]), expected.attentions, strict=True):
        torch.testing.assert_close(attention.float(), seen, rtol=1e-4, atol=1e-5)
    spread = torch.stack(expected.attentions)[:, 0].std(-1)
    assert spread.max() > 0.1, "uniform maps would prove nothing"
    torch.testing.assert_close(output.logits, expected.logits, rtol=1e-4, atol=1e-5)
    assert {part.shape for triple in triples for part in triple} == {(2, HEADS, 5, WIDTH // HEADS)}


@every_architecture
def test_values_and_maps_give_what_the_layer_passes_on(kind):
    """The recorded values times the maps are the output of the attention."""
    model = prepared(kind)
    seen = []
    genuine = recording.sdpa_attention_forward

    def spy(*arguments, **options):
        seen.append(genuine(*arguments, **options)[0])
        return genuine(*arguments, **options)

    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording, "sdpa_attention_forward", spy)
        _, triples = recording.recorded(model, **INPUTS)
    for attention, (_, _, value), context in zip(maps(triples, INPUTS["attention_mask"]), triples, seen, strict=True):
        torch.testing.assert_close((attention.float() @ value).transpose(1, 2), context, rtol=1e-4, atol=1e-5)


@every_architecture
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_outputs_are_those_of_sdpa(kind, training, autocast):
    plain = build(kind).train(training)
    model = copy.deepcopy(plain)
    recording.prepare(model)

    def seeded(call):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return call()

    expected = seeded(lambda: plain(**INPUTS, output_hidden_states=True))
    off = seeded(lambda: model(**INPUTS, output_hidden_states=True))
    on, triples = seeded(lambda: recording.recorded(model, **INPUTS, output_hidden_states=True))
    assert len(triples) == LAYERS
    for found in (off, on):
        assert torch.equal(found.logits, expected.logits)
        assert all(map(torch.equal, found.hidden_states, expected.hidden_states))
    assert model.training == training


@every_architecture
def test_gradient_flows_through_the_triples(kind):
    model = prepared(kind).train()
    _, triples = recording.recorded(model, **INPUTS)
    for place, names in enumerate((("query", "q_"), ("key", "k_"), ("value", "v_"))):
        model.zero_grad()
        triples[-1][place].square().sum().backward(retain_graph=True)
        reached = [name for name, weight in model.named_parameters() if weight.grad is not None and weight.grad.any()]
        assert any(part in name for name in reached for part in names)
        assert model.get_input_embeddings().weight.grad.any()


@pytest.mark.parametrize("kind", ["bert", "distilbert", "eurobert"])
def test_checkpointing_of_activations_changes_no_gradient(kind):
    gradients = []
    for checkpointing in (False, True):
        model = prepared(kind).train()
        if checkpointing:
            model.activation_checkpointing_enable()
        torch.manual_seed(1)
        output, triples = recording.recorded(model, **INPUTS)
        (output.logits.sum() + sum(part.square().sum() for triple in triples for part in triple)).backward()
        assert len(triples) == LAYERS
        gradients.append([weight.grad for weight in model.parameters()])
    assert model.is_activation_checkpointing
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)


def test_teacher_answers_without_graph():
    with torch.no_grad():
        _, triples = recording.recorded(prepared(), **INPUTS)
    assert not any(part.requires_grad for triple in triples for part in triple)


def test_nothing_is_kept_when_off():
    model = prepared()
    _, triples = recording.recorded(model, **INPUTS)
    model(**INPUTS)
    assert len(triples) == LAYERS
    assert recording._record.get() is None


def test_an_error_ends_the_recording():
    model = prepared()
    with pytest.raises(IndexError):
        recording.recorded(model, input_ids=torch.tensor([[99]]))
    assert recording._record.get() is None
    assert len(recording.recorded(model, **INPUTS)[1]) == LAYERS


def test_threads_record_apart():
    model = prepared()
    lengths, found = (2, 3, 4, 5), {}
    together = threading.Barrier(len(lengths))

    def work(length):
        together.wait()
        for _ in range(10):
            _, triples = recording.recorded(model, input_ids=INPUTS["input_ids"][:, :length])
            found.setdefault(length, []).append({part.shape[2] for triple in triples for part in triple})

    threads = [threading.Thread(target=work, args=(length,)) for length in lengths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {length: [{length}] * 10 for length in lengths}


@every_architecture
def test_a_saved_model_knows_nothing_of_it(kind, tmp_path):
    model = prepared(kind)
    expected, _ = recording.recorded(model, **INPUTS)
    model.save_pretrained(tmp_path)
    assert model.config._attn_implementation == recording.IMPLEMENTATION
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) >= 2
    assert not any(b"recording" in file.read_bytes() for file in files)
    assert "recording" not in model.config.to_json_string() + str(model.config.to_diff_dict())
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert loaded.config._attn_implementation == "sdpa"
    assert torch.equal(loaded(**INPUTS).logits, expected.logits)


def test_a_copy_records_on_its_own():
    model = prepared()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.get_input_embeddings().weight.mul_(2)
        original, other = (recording.recorded(each, **INPUTS)[1] for each in (model, twin))
    assert len(original) == len(other) == LAYERS
    assert not torch.equal(original[0][0], other[0][0])


def test_an_eager_model_may_be_prepared_and_twice():
    model = build("bert", "eager")
    for _ in range(2):
        recording.prepare(model)
        assert len(recording.recorded(model, **INPUTS)[1]) == LAYERS


# --- refusals

OTHER = "expect attention through the interface of transformers, found another in"


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("deberta-v2", {}, f"{OTHER} 'deberta-v2'; use hint or relation losses"),
        ("mpnet", {}, f"{OTHER} 'mpnet'; use hint or relation losses"),
        ("gpt2", {"n_embd": WIDTH, "n_layer": 2, "n_head": 2}, "found causal attention in 'gpt2'"),
        ("bert", {"is_decoder": True}, "found causal attention in 'bert'"),
    ],
)
def test_other_architectures_are_refused(kind, options, words):
    with pytest.raises(KDError, match=words):
        recording.prepare(build(kind, None, **options))


@pytest.mark.parametrize("kind", ["bert", "mpnet", "kd-bilstm"])
def test_an_architecture_is_refused_before_any_weight_is_loaded(kind):
    config = build(kind, None).config if kind != "kd-bilstm" else AutoConfig.for_model(kind)
    before = config.to_dict()
    if kind == "bert":
        recording.require_recordable(config)
    else:
        with pytest.raises(KDError, match=f"{OTHER} '{kind}'"):
            recording.require_recordable(config)
    assert config.to_dict() == before


def test_students_without_attention_are_refused():
    config = AutoConfig.for_model("kd-bilstm")
    with pytest.raises(KDError, match=OTHER):
        recording.prepare(AutoModelForSequenceClassification.from_config(config))


def test_other_number_of_layers_is_refused():
    model = prepared("albert", inner_group_num=2)
    with pytest.raises(KDError, match=r"each of the 3 layers of 'albert', found 6; use hint or relation"):
        recording.recorded(model, **INPUTS)


def test_position_bias_is_refused():
    vectors = torch.zeros(1, 2, 3, 4)
    with pytest.raises(KDError, match="position bias"):
        recording._triple(vectors, vectors, vectors, position_bias=torch.zeros(1, 2, 3, 3))
