"""The composed student: the teacher's frozen lowest layers, a mapper, and a body that reads the mapped vectors."""

import copy
import json
from functools import partial

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    GPT2Config,
    ModernBertConfig,
    RobertaConfig,
    pipeline,
)

from kd.contract import supported_outputs
from kd.errors import KDError
from kd.features.fitted_mapper import PCA
from kd.features.mapper import AttentionPooling, Identity, Linear
from kd.models import BiLSTMConfig, ComposedStudentConfig, DANConfig, MLPConfig, TextCNNConfig
from kd.models.composition import ComposedStudent, compose, composed_config, teacher_share
from kd.models.pretrained import new_student
from kd.predictor import Predictor
from kd.storage.model_folder import load_classifier, load_config, longest_text

ENCODER = {"vocab_size": 40, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
ENCODER |= {"num_hidden_layers": 2, "max_position_embeddings": 34}
DISTILBERT = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "max_position_embeddings": 34}
TEACHERS = {
    "bert": BertConfig(**ENCODER, hidden_dropout_prob=0.5),
    "roberta": RobertaConfig(**ENCODER, hidden_dropout_prob=0.5, pad_token_id=1),
    "distilbert": DistilBertConfig(vocab_size=40, **DISTILBERT, dropout=0.5),
}
LABELS = {"id2label": {0: "bad", 1: "so", 2: "good"}, "label2id": {"bad": 0, "so": 1, "good": 2}}
SIZES = {"vocab_size": 30522, "embedding_size": 12, "pad_token_id": 7, "dropout": 0.0, **LABELS}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
BODIES = {
    "mlp": MLPConfig(**SIZES, hidden_size=10),
    "dan": DANConfig(**SIZES, hidden_size=10, word_dropout=0.0),
    "textcnn": TextCNNConfig(**SIZES, num_filters=7),
    "bilstm": BiLSTMConfig(**SIZES, hidden_size=8),
    "bert": BertConfig(**ENCODER | {"hidden_size": 12}, **NO_DROPOUT, **LABELS),
}
every_teacher = pytest.mark.parametrize("teacher", TEACHERS)
every_body = pytest.mark.parametrize("body", BODIES)
every_pair = pytest.mark.parametrize(
    ("teacher", "body"), [*(("bert", body) for body in BODIES), ("roberta", "mlp"), ("distilbert", "mlp")]
)

MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
GOLD = torch.tensor([0, 1, 2, 0])


def whole(teacher="bert", seed=1):
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(copy.deepcopy(TEACHERS[teacher]))
    with torch.no_grad():  # otherwise the padding row is zero, and reading it would have no effect
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


def make(body="mlp", teacher="bert", layer=1, mapper=Linear):
    teacher = whole(teacher)
    torch.manual_seed(0)
    return compose(teacher, layer, mapper, BODIES[body]).eval()


def ids(model):
    tokens = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 0, 0, 0, 0], [13, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
    return torch.where(MASK.bool(), tokens, model.config.pad_token_id)


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


@every_teacher
@pytest.mark.parametrize("layer", [0, 1, 2, None])
def test_the_encoder_gives_the_hidden_states_of_the_whole_teacher(teacher, layer):
    model, full = make(teacher=teacher, layer=layer), whole(teacher)
    depth = 2 if layer is None else layer
    states = full(ids(model), MASK, output_hidden_states=True).hidden_states[depth]
    features = model.features_of(ids(model), MASK)
    close(features[MASK.bool()], states[MASK.bool()])
    assert not features.requires_grad
    assert model.config.layer == model.encoder.config.num_hidden_layers == depth
    names = [name for name in model.encoder.state_dict() if "layer." in name]
    assert {int(name.split("layer.")[1].split(".")[0]) for name in names} == set(range(depth))
    assert not any("pooler" in name for name in model.encoder.state_dict())
    assert (sum(p.numel() for p in model.encoder.parameters()) < full.base_model.num_parameters()) == (
        depth < 2 or teacher == "bert"  # whose pooler is removed
    )


@every_body
def test_cached_features_stand_in_for_the_encoder(body):
    model = make(body)
    features = model.features_of(ids(model), MASK)
    expected = model(ids(model), MASK).logits
    model.encoder = torch.nn.Module()  # a call of it fails
    assert torch.equal(model(attention_mask=MASK, features=features).logits, expected)
    assert torch.equal(model(ids(model), MASK, features).logits, expected)
    half = model(attention_mask=MASK, features=features.half()).logits
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, expected, atol=5e-3, rtol=0)
    garbage = features.masked_fill(MASK.unsqueeze(-1) == 0, float("nan"))
    assert torch.equal(model(attention_mask=MASK, features=garbage).logits, expected)


@every_body
def test_half_precision_features_through_an_identity(body):
    config = copy.deepcopy(BODIES[body])
    setattr(config, "hidden_size" if body == "bert" else "embedding_size", 16)
    model = compose(whole(), 1, Identity, config).train()
    features = model.features_of(ids(model), MASK).half()
    model(attention_mask=MASK, features=features, labels=GOLD).loss.backward()
    assert all(p.grad.isfinite().all() for p in model.body.parameters() if p.requires_grad)


@every_body
@pytest.mark.parametrize(("mapper", "cached"), [(Linear, False), (Linear, True), (AttentionPooling, False)])
def test_gradient_reaches_mapper_and_body_and_a_step_leaves_the_encoder(body, mapper, cached):
    model = make(body, mapper=mapper).train()
    features = model.features_of(ids(model), MASK) if cached else None
    before = copy.deepcopy(model.state_dict())
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in learning} == {"mapper", "body"}
    optimizer = torch.optim.AdamW(learning.values(), lr=0.1, weight_decay=0.1)
    model(ids(model), MASK, features, labels=GOLD).loss.backward()
    assert all(parameter.grad is not None for parameter in learning.values())
    assert all(model.mapper.linear.weight.grad.abs().sum(0) > 0)
    optimizer.step()
    for name, value in model.state_dict().items():
        frozen = name.startswith(("encoder.", "body.embedding.", "body.bert.embeddings.word"))
        if frozen or not (".query." in name or ".key." in name):  # attention over one token needs neither
            assert torch.equal(value, before[name]) == frozen, name


@every_pair
@pytest.mark.parametrize("mapper", [Linear, AttentionPooling])
def test_padding_changes_no_logit(teacher, body, mapper):
    model = make(body, teacher, mapper=mapper)
    tokens = ids(model)
    logits = model(tokens, MASK).logits
    wider = torch.nn.functional.pad(tokens, (0, 9), value=33), torch.nn.functional.pad(MASK, (0, 9))
    close(model(*wider).logits, logits)
    close(model(tokens).logits, logits)  # the mask that padding alone implies
    order = torch.tensor([3, 1, 0, 2])
    close(model(tokens[order], MASK[order]).logits, logits[order])
    for row in range(len(tokens)):
        length = int(MASK[row].sum())
        alone = model(tokens[row : row + 1, :length], MASK[row : row + 1, :length]).logits
        close(alone, logits[row : row + 1])
    assert logits.std(0).min() > 1e-4  # rows differ at all


@every_body
def test_an_empty_text_reads_as_one_zero_vector(body):
    model = make(body)
    empty = model(torch.zeros(2, 0), torch.zeros(2, 0)).logits  # as a tokenizer returns ["", ""], in floats
    close(empty, model.body(inputs_embeds=torch.zeros(2, 1, 12)).logits)
    close(model(torch.zeros(2, 0)).logits, empty)
    close(model(features=torch.zeros(2, 0, 16)).logits, empty)


@every_teacher
@pytest.mark.parametrize("start", [lambda model: model, lambda model: torch.nn.Sequential(model.eval()).train()])
def test_training_leaves_the_encoder_in_evaluation(teacher, start):
    model = compose(whole(teacher), 1, Linear, BODIES["mlp"])
    expected = make(teacher=teacher).features_of(ids(model), MASK)
    start(model)
    assert model.training and model.body.training and model.mapper.training
    assert not any(module.training for module in model.encoder.modules())
    assert not any(parameter.requires_grad for parameter in model.encoder.parameters())
    model.encoder.requires_grad_(True)  # as code that unfreezes the whole model does
    found = model.features_of(ids(model), MASK)
    assert torch.equal(found, expected) and not found.requires_grad
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.features_of(ids(model), MASK), expected)


@every_body
def test_learns_in_mixed_precision(body):
    model = make(body).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(ids(model), MASK, labels=GOLD).loss
    loss.backward()
    assert model.mapper.linear.weight.grad.isfinite().all()


@every_pair
def test_saves_and_loads(teacher, body, tmp_path):
    model = make(body, teacher)
    model.save_pretrained(tmp_path)
    loaded, info = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is ComposedStudent
    assert not any(info.values())
    close(loaded(ids(model), MASK).logits, model(ids(model), MASK).logits)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert {name for name, p in loaded.named_parameters() if not p.requires_grad} == frozen
    assert not loaded.training
    found, expected = loaded.config.to_dict(), model.config.to_dict()
    assert found | {"_name_or_path": ""} == expected | {"_name_or_path": ""}
    assert loaded.config.id2label == loaded.body.config.id2label == LABELS["id2label"]
    again = ComposedStudentConfig.from_dict(json.loads(model.config.to_json_string()))
    torch.manual_seed(0)
    close(ComposedStudent(again).body.state_dict(), model.body.state_dict())


def test_keeps_its_precision(tmp_path):
    make().half().save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert {p.dtype for p in loaded.parameters()} == {torch.float16}
    assert loaded(ids(loaded), MASK).logits.dtype == torch.float16
    assert {p.dtype for p in load_classifier(tmp_path).parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("body", "mapper"), [*((body, Linear) for body in BODIES), ("mlp", partial(AttentionPooling, heads=2))]
)
def test_works_in_a_pipeline(body, mapper, teacher_folder, tmp_path):
    torch.manual_seed(0)
    predictor = Predictor.load(teacher_folder)
    compose(predictor.model, 1, mapper, BODIES[body]).save_pretrained(tmp_path)
    predictor.tokenizer.save_pretrained(tmp_path)
    classify = pipeline("text-classification", model=str(tmp_path), device="cpu")
    texts = ["a very dull film", "the plot", ""]
    together = classify(texts, batch_size=3)
    assert {answer["label"] for answer in together} <= set(LABELS["label2id"])
    scores = torch.from_numpy(Predictor.load(tmp_path).probabilities(texts)).amax(1)
    for text, answer, score in zip(texts, together, scores, strict=True):
        assert classify(text)[0]["score"] == pytest.approx(answer["score"], abs=1e-6)
        assert score.item() == pytest.approx(answer["score"], abs=1e-6)


def test_a_folder_from_before_the_class_was_renamed_still_loads(teacher_folder, tmp_path):
    predictor = Predictor.load(teacher_folder)
    model = compose(predictor.model, 1, Linear, BODIES["mlp"]).eval()
    model.save_pretrained(tmp_path)
    predictor.tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    assert config["model_type"] == "kd-mapped" and config["architectures"] == ["ComposedStudent"]
    path.write_text(json.dumps(config | {"architectures": ["Mapped"]}))
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(loaded) is ComposedStudent
    text = predictor.tokenizer("a very dull film", return_tensors="pt")
    close(loaded(**text).logits, model(**text).logits)
    (answer,) = pipeline("text-classification", model=str(tmp_path), device="cpu")("a very dull film")
    assert answer["score"] == pytest.approx(model(**text).logits.softmax(1).max().item(), abs=1e-6)


@pytest.mark.parametrize("mapper", [Linear, AttentionPooling])
@every_body
def test_hidden_states(body, mapper):
    model = make(body, mapper=mapper)
    answer = model(ids(model), MASK, output_hidden_states=True)
    features, mapped, *above = answer.hidden_states
    length = 1 if mapper is AttentionPooling else 6
    assert features.shape == (4, 6, 16) and mapped.shape == (4, length, 12)
    read = torch.ones(4, 1) if mapper is AttentionPooling else MASK
    if mapper is Linear:
        tokens = MASK.bool()
        close(mapped[tokens], features[tokens] @ model.mapper.linear.weight.T + model.mapper.linear.bias)
        assert not mapped[~tokens].any()
        empty = MASK.sum(1, keepdim=True) == 0
        read = torch.where(empty, torch.tensor([1, 0, 0, 0, 0, 0]), MASK)
    else:
        close(mapped[3, 0], model.mapper.linear.bias)
    expected = model.body(inputs_embeds=mapped, attention_mask=read, output_hidden_states=True)
    close(answer.logits, expected.logits)
    assert len(above) == len(expected.hidden_states) - 1
    for found, state in zip(above, expected.hidden_states[1:], strict=True):
        close(found, state)
    assert model(ids(model), MASK).hidden_states is None
    assert supported_outputs(model.config) == {"logits", "hidden_states"}


def test_a_fitted_mapper_travels_with_the_model(tmp_path):
    model = make(mapper=partial(PCA, whiten=True))
    features = model.features_of(torch.randint(2, 40, (9, 9)), torch.ones(9, 9))
    model.mapper.fit(features.flatten(0, 1))
    expected = model(ids(model), MASK).logits
    model.save_pretrained(tmp_path)
    loaded = load_classifier(tmp_path)
    assert loaded.mapper.is_fitted and loaded.mapper.whiten
    assert torch.equal(loaded(ids(model), MASK).logits, expected)
    assert {name.split(".")[0] for name, p in loaded.named_parameters() if p.requires_grad} == {"body"}


@every_body
def test_loss_is_the_mean_over_labelled_rows(body):
    model = make(body)
    answer = model(ids(model), MASK, labels=torch.tensor([0, -100, 2, -100]))
    torch.testing.assert_close(answer.loss, -answer.logits.log_softmax(-1)[[0, 2], [0, 2]].mean())
    assert model(ids(model), MASK, labels=torch.full((4,), -100)).loss == 0
    assert model(ids(model), MASK, token_type_ids=ids(model), return_dict=True).loss is None


@pytest.mark.parametrize("body", ["mlp", "bert"])
def test_the_start_depends_on_the_seed_alone(body):
    model = make(body)
    expected = model.body.state_dict()
    for other in (make(body, "distilbert", 0), make(body, "roberta", 2)):
        close(other.body.state_dict(), expected)
        close(other.mapper.state_dict(), model.mapper.state_dict())
    head = list(expected)[-2]
    torch.manual_seed(5)
    assert not torch.equal(compose(whole(seed=5), 1, Linear, BODIES[body]).body.state_dict()[head], expected[head])


def test_the_teacher_stays_as_it_is():
    teacher = whole().train()
    before, names = copy.deepcopy(teacher.state_dict()), teacher.config.to_dict()
    model = compose(teacher, 1, Linear, BODIES["mlp"])
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.zero_()
    assert all(module.training for module in teacher.modules())
    assert all(parameter.requires_grad for parameter in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert teacher.config.to_dict() == names and BODIES["mlp"].vocab_size == 30522


def test_a_teacher_in_half_precision_is_composed_in_full():
    teacher = whole().half()
    model = compose(teacher, 1, Linear, BODIES["mlp"])
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    table = teacher.get_input_embeddings().weight
    assert torch.equal(model.get_input_embeddings().weight, table.float())


def test_a_body_from_a_checkpoint_keeps_its_weights(tmp_path):
    original = new_student(BertConfig(**ENCODER | {"vocab_size": 30}))
    original.save_pretrained(tmp_path)
    model = compose(whole(), 1, Linear, load_config(tmp_path))
    expected = original.state_dict()
    differing = {n for n, value in model.body.state_dict().items() if not value.equal(expected[n])}
    assert differing == {"bert.embeddings.word_embeddings.weight"}
    assert model.config.student["vocab_size"] == 1 and str(tmp_path) not in model.config.to_json_string()


@every_body
def test_each_part_is_counted(body):
    model = make(body)
    share = teacher_share(model)
    assert sum(share.values()) == model.num_parameters()
    assert share["mapper"] == 16 * 12 + 12
    assert share["encoder"] == AutoModel.from_config(model.encoder.config, add_pooling_layer=False).num_parameters()
    assert share["body"] == new_student(model.body.config).num_parameters()


def test_the_longest_text_is_that_of_the_shortest_position_table():
    config = {"mapper": Linear, "layer": 1, "student_config": BODIES["mlp"]}
    assert longest_text(composed_config(TEACHERS["bert"], **config)) == 34
    assert longest_text(composed_config(TEACHERS["roberta"], **config)) == 32
    config["student_config"] = BertConfig(max_position_embeddings=20)
    assert longest_text(composed_config(TEACHERS["bert"], **config)) == 20
    model = make(teacher="roberta")
    assert model(torch.full((1, 32), 5)).logits.isfinite().all()


def test_a_config_can_be_made_without_weights():
    mapper = partial(Linear, bias=False)
    config = composed_config(TEACHERS["distilbert"], 1, mapper, BODIES["dan"])
    model = AutoModelForSequenceClassification.from_config(config)
    assert (config.layer, config.pad_token_id, config.num_labels) == (1, 0, 3)
    assert config.mapper == model.mapper.spec() == {"name": "linear", "bias": False}
    assert config.student["vocab_size"] == 1 and model.body.get_input_embeddings().num_embeddings == 1
    assert len(model.encoder.transformer.layer) == 1
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    same = composed_config(model.encoder.config, None, mapper, model.body.config)
    assert same.to_dict() == config.to_dict() and torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("layer", [-1, 3, 1.0, True, "last"])
def test_impossible_layers_are_refused(layer):
    with pytest.raises(KDError, match=r"impossible layer number .*'bert'.* layer 1 to 2, or 0 .* method\.layer"):
        make(layer=layer)


def test_teachers_that_cannot_be_cut_are_refused():
    with pytest.raises(KDError, match="'kd-mlp' has no layers to cut after"):
        compose(new_student(BODIES["mlp"]), 1, Linear, BODIES["dan"])
    modern = ModernBertConfig(**ENCODER, pad_token_id=0, bos_token_id=2, eos_token_id=3)
    modern = AutoModelForSequenceClassification.from_config(modern)
    with pytest.raises(KDError, match=r"'modernbert' cannot be cut after layer 1 .*layer_types.*layer=null"):
        compose(modern, 1, Linear, BODIES["mlp"])
    assert compose(modern, None, Linear, BODIES["mlp"])(torch.tensor([[3]])).logits.isfinite().all()
    gpt = AutoModelForSequenceClassification.from_config(GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2))
    with pytest.raises(KDError, match=r"'gpt2' cannot be cut after layer 1 .*gives other hidden states"):
        compose(gpt, 1, Linear, BODIES["mlp"])
    model = compose(gpt, None, Linear, BODIES["mlp"]).eval()
    assert model.config.pad_token_id is None
    close(model(torch.tensor([[3, 0]])).logits, model(torch.tensor([[3, 0]]), torch.ones(1, 2)).logits)


def test_other_mistakes_are_refused():
    with pytest.raises(KDError, match="needs two equal widths, found 16 -> 12"):
        make(mapper=Identity)
    with pytest.raises(KDError, match="needs two equal widths, found 16 -> 12"):
        composed_config(TEACHERS["bert"], 1, Identity, BODIES["bert"])
    with pytest.raises(KDError, match=r"student 'bert'.*change the sizes"):
        composed_config(TEACHERS["bert"], 1, Linear, BertConfig(hidden_size=10, num_attention_heads=3))
    with pytest.raises(KDError, match="give one of them"):
        make()(labels=GOLD)
    with pytest.raises(KDError, match="no attention maps"):
        make()(ids(make()), output_attentions=True)


@pytest.mark.parametrize("part", ["encoder", "student"])
def test_a_folder_decides_nothing_but_sizes(part, tmp_path):
    make().save_pretrained(tmp_path)
    expected = load_classifier(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    code = {"auto_map": {"AutoModel": "code--x.Y"}}
    kernels = ({"attn_implementation": "somebody/kernel"}, {"_attn_implementation": "somebody/kernel"})
    for asked in (code, *kernels):
        path.write_text(json.dumps(config | {part: config[part] | asked}))
        with pytest.raises(KDError, match="needs code of its own"):
            load_classifier(tmp_path)
    hostile = {"name_or_path": "somebody/model", "_name_or_path": "somebody/model", "dtype": "float64"}
    config[part] |= hostile | {"output_attentions": True, "output_hidden_states": True, "return_dict": False}
    path.write_text(json.dumps(config))
    model = load_classifier(tmp_path)
    assert torch.equal(model(ids(model), MASK).logits, expected(ids(model), MASK).logits)
    config["mapper"]["name"] = "os.system"
    path.write_text(json.dumps(config))
    with pytest.raises(KDError, match=r"cannot read .*mapper\.name must be"):
        load_classifier(tmp_path)


def test_other_labels_start_another_head(tmp_path):
    model = make()
    model.save_pretrained(tmp_path)
    other = load_classifier(tmp_path, new_head=True, label_names=["no", "yes"])
    assert other(ids(model), MASK).logits.shape == (4, 2)
    assert torch.equal(other.body.layers[0].weight, model.body.layers[0].weight)
    assert torch.equal(other.encoder.get_input_embeddings().weight, model.get_input_embeddings().weight)
    assert 0 < other.body.head.weight.abs().max() < 1


def test_bert_without_the_teacher_is_bert():
    """With all layers and an identity, the body reads the encoder's own output."""
    teacher = BertForSequenceClassification(TEACHERS["bert"]).eval()
    body = MLPConfig(**SIZES | {"embedding_size": 16}, num_layers=0)
    model = compose(teacher, None, Identity, body).eval()
    states = teacher.bert(ids(model), MASK).last_hidden_state[0].mean(0)
    close(model(ids(model), MASK).logits[0], model.body.head(states))


@pytest.mark.parametrize("body", ["mlp", "textcnn"])
def test_the_composition_is_captured_as_one_graph(body):
    """Exporters start from such a graph, for any number of texts of at least three tokens ([CLS] x [SEP])."""
    model = make(body)
    tokens, mask = ids(model), MASK

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask):
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    batch, length = torch.export.Dim("batch", min=2, max=64), torch.export.Dim("length", min=3, max=34)
    shapes = {name: {0: batch, 1: length} for name in ("input_ids", "attention_mask")}
    program = torch.export.export(Logits().eval(), (tokens, mask), dynamic_shapes=shapes).module()
    close(program(tokens, mask), model(input_ids=tokens, attention_mask=mask).logits)
    longer = torch.randint(3, 40, (3, 11))
    close(program(longer, torch.ones_like(longer)), model(input_ids=longer).logits)
