"""Which layers are paired, which are refused, and whether the losses read the outputs of the models."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import BertConfig, BertForSequenceClassification, ElectraConfig, ElectraForSequenceClassification

from kd.errors import KDError
from kd.features import attention as recording
from kd.features.feature import Feature, inner, read
from kd.features.fitted_mapper import PCA, LeastSquares, Procrustes
from kd.features.mapper import MLP as MLPMapper
from kd.features.mapper import AttentionPooling, Identity, LowRank
from kd.features.matching import Matching, layer_pairs, shape_of
from kd.losses.attention import AttentionTransfer, MiniLM, MiniLMv2, TinyBertAttention
from kd.losses.hint import PKD, VID, Cosine, Hint
from kd.losses.relation import CKA
from kd.models import DAN, MLP, BiLSTM, BiLSTMConfig, DANConfig, MLPConfig, TextCNN, TextCNNConfig

WORDS = {"vocab_size": 50, "embedding_size": 6, "num_labels": 2, "dropout": 0.3}


def make_bert(width=16, layers=3, heads=2, seed=1, **options) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    config = BertConfig(vocab_size=50, intermediate_size=24, max_position_embeddings=32, **sizes, **options)
    return BertForSequenceClassification(config).eval()


STUDENTS = {
    "mlp": lambda: MLP(MLPConfig(**WORDS, hidden_size=10)),
    "dan": lambda: DAN(DANConfig(**WORDS, hidden_size=10)),
    "textcnn": lambda: TextCNN(TextCNNConfig(**WORDS, filter_sizes=(2, 3), num_filters=5)),
    "bilstm": lambda: BiLSTM(BiLSTMConfig(**WORDS, hidden_size=4)),
    "transformer": lambda: make_bert(width=8, layers=2),
}


def make_student(name):
    torch.manual_seed(0)
    return STUDENTS[name]().eval()


@pytest.fixture(scope="module")
def teacher():
    return make_bert()


def matching(student, teacher, losses=None, **options) -> Matching:
    """Build a matching, with one hint if no losses are named; a seed fixes the mappers' initialisation."""
    student = make_student(student) if isinstance(student, str) else student
    torch.manual_seed(3)
    return Matching({"hint": Hint()} if losses is None else losses, student, teacher.config, **options)


def make_batch(rows=5, extra=0, seed=0) -> dict[str, torch.Tensor]:
    """Return rows of 2 to 7 tokens, and `extra` columns of padding with the ids of words in it."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 8, (rows,), generator=generator)
    lengths[0] = 7
    ids = torch.randint(1, 50, (rows, 7), generator=generator)
    mask = (torch.arange(7 + extra) < lengths[:, None]).long()
    ids = torch.cat([ids, torch.randint(1, 50, (rows, extra), generator=generator)], dim=1)
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def answers(match, student, teacher, batch):
    """Return what the losses read, computed by the same calls as in training."""
    if match.outputs - {"hidden_states"}:
        recording.prepare(student)
    if any(feature.output != "hidden_states" for feature in match.features):
        recording.prepare(teacher)
    output, attention = inner(student, batch, match.outputs)
    logits, found = read(teacher, batch, match.features)
    return match(output, attention, logits, found, batch["attention_mask"])


@torch.no_grad()
def states_of(model, batch) -> list[np.ndarray]:
    """Return hidden states in float64, computed by the model alone."""
    found = model(**batch, output_hidden_states=True).hidden_states
    return [state.double().numpy() for state in found]


def vectors(states, batch, pooling) -> np.ndarray:
    """Return one vector for each text, computed token by token; a state of one vector is returned as it is."""
    if states.shape[1] == 1:
        return states[:, 0]
    lengths = batch["attention_mask"].sum(1).tolist()
    if pooling == "cls":
        return states[:, 0]
    return np.stack([row[:length].sum(0) / length for row, length in zip(states, lengths, strict=True)])


def linear(mapper, values) -> np.ndarray:
    weight, bias = (parameter.detach().double().numpy() for parameter in (mapper.linear.weight, mapper.linear.bias))
    return values @ weight.T + bias


def close(found, expected):
    np.testing.assert_allclose(found.double().numpy(), expected, atol=2e-6)


# --- pairs of layers


@pytest.mark.parametrize(
    ("rule", "student", "depth", "expected"),
    [
        ("uniform", [1, 2, 3, 4], 12, [(1, 3), (2, 6), (3, 9), (4, 12)]),
        ("uniform", [1, 2], 3, [(1, 2), (2, 3)]),
        ("uniform", [1, 2, 3], 3, [(1, 1), (2, 2), (3, 3)]),
        ("uniform", [2], 6, [(2, 6)]),
        ("last", [1, 2, 3], 6, [(1, 4), (2, 5), (3, 6)]),
        ("last", [1, 3], 2, [(1, 1), (3, 2)]),
        ("first", [1, 2, 3], 6, [(1, 1), (2, 2), (3, 3)]),
        ("first", [2, 3], 6, [(2, 1), (3, 2)]),
        ("top", [1, 2, 3], 12, [(3, 12)]),
        ("top", [1, 2, 3], 2, [(3, 2)]),
        ("every_1", [1, 2], 6, [(1, 1), (2, 2)]),
        ("every_2", [1, 2, 3], 6, [(1, 2), (2, 4), (3, 6)]),
        ("every_3", [1, 2], 8, [(1, 3), (2, 6)]),
        ("every_12", [1], 12, [(1, 12)]),
        ([[2, 6], [1, 3]], [1, 2], 6, [(2, 6), (1, 3)]),
        ([(1, 3), (1, 4), (2, 4)], [1, 2], 6, [(1, 3), (1, 4), (2, 4)]),
        ([[0, 0], [2, 0]], [2], 6, [(0, 0), (2, 0)]),
    ],
)
def test_pairs_by_hand(rule, student, depth, expected):
    assert layer_pairs(rule, student, depth) == expected


@pytest.mark.parametrize("student", range(1, 7))
@pytest.mark.parametrize("depth", range(1, 13))
def test_uniform_pairs_rise_to_the_top_without_repetition(student, depth):
    if student > depth:
        return
    pairs = layer_pairs("uniform", range(1, student + 1), depth)
    others = [other for _, other in pairs]
    assert [own for own, _ in pairs] == list(range(1, student + 1))
    assert others[-1] == depth and others[0] >= 1 and all(low < high for low, high in itertools.pairwise(others))


def test_random_pairs_are_drawn_anew_without_repetition_and_in_rising_order():
    torch.manual_seed(0)
    drawn = [layer_pairs("random", [1, 2, 4], 6) for _ in range(300)]
    assert all([own for own, _ in pairs] == [1, 2, 4] for pairs in drawn)
    others = {tuple(other for _, other in pairs) for pairs in drawn}
    assert all(1 <= low < middle < high <= 6 for low, middle, high in others)
    assert len(others) == 20, "each of the 20 choices of 3 out of 6"
    torch.manual_seed(0)
    assert [layer_pairs("random", [1, 2, 4], 6) for _ in range(300)] == drawn


@pytest.mark.parametrize(
    ("rule", "student", "depth", "needed"),
    [("uniform", 4, 3, 4), ("last", 4, 3, 4), ("first", 2, 1, 2), ("random", 4, 3, 4), ("every_3", 3, 8, 9)],
)
def test_a_rule_that_does_not_fit_the_depths_is_refused(rule, student, depth, needed):
    message = (
        rf"layers={rule} needs {needed} teacher layers for the student's {student}, and the teacher has {depth}; "
        rf"choose layers=top or a list such as \[\[1,{depth}\]\]"
    )
    with pytest.raises(KDError, match=message):
        layer_pairs(rule, range(1, student + 1), depth)


@pytest.mark.parametrize("rule", ["middle", "every_0", "every_", "every_-1", "every_2.5", "", 3, True, None, {1: 2}])
def test_an_unknown_rule_is_refused(rule):
    expected = "expected uniform, last, first, top, random, every_K or a list of .student layer, teacher layer., got "
    with pytest.raises(KDError, match=f"layers: {expected}'{rule}'"):
        layer_pairs(rule, [1, 2], 6)


@pytest.mark.parametrize("pair", [[1], [1, 2, 3], 3, "13", ["1", "2"], [1.0, 2], [True, 1], None])
def test_a_malformed_pair_is_refused(pair):
    with pytest.raises(KDError, match=r"layers: expected a list of \[student layer, teacher layer\], got .*; write"):
        layer_pairs([[1, 3], pair], [1, 2], 6)


def test_an_empty_list_is_refused():
    with pytest.raises(KDError, match=r"expected at least one pair, got an empty list; give a rule or \[\[1,3\]\]"):
        layer_pairs([], [1, 2], 6)


@pytest.mark.parametrize("pair", [[3, 1], [-1, 1], [1, 7], [1, -1]])
def test_a_layer_that_is_not_there_is_refused(pair):
    with pytest.raises(KDError, match=r"no pair .*: for this term the student has layers 0, 1, 2 and the teacher 0 to"):
        layer_pairs([pair], [1, 2], 6)


def test_attention_has_no_layer_of_embeddings(teacher):
    for pair in ([0, 1], [1, 0]):
        with pytest.raises(KDError, match=r"no pair .* the student has layers 1, 2 and the teacher 1 to 3"):
            matching("transformer", teacher, {"attention": TinyBertAttention(layers=[pair])})


# --- what a student's states are, and who may take part


@pytest.mark.parametrize(
    ("name", "widths", "by_token", "sentence", "token"),
    [
        ("mlp", [6, 6, 10], [1, 0, 0], [1, 2], []),
        ("dan", [6, 6, 10, 10], [1, 0, 0, 0], [1, 2, 3], []),
        ("textcnn", [6, 10, 10], [1, 1, 0], [1, 2], [1]),
        ("bilstm", [6, 8, 16], [1, 1, 0], [1, 2], [1]),
        ("transformer", [8, 8, 8], [1, 1, 1], [1, 2], [1, 2]),
    ],
)
def test_eligible_layers(teacher, name, widths, by_token, sentence, token):
    student = make_student(name).train()
    shape = shape_of(student)
    assert student.training, "reading the shape keeps the mode"
    assert shape.widths == widths and shape.by_token == list(map(bool, by_token))
    match = matching(student, teacher)
    assert match.eligible(Hint()) == sentence
    assert match.eligible(Hint("token")) == token
    assert match.possible["hint"] == layer_pairs("uniform", sentence, 3)


@pytest.mark.parametrize("name", ["mlp", "dan"])
def test_a_bag_of_words_keeps_no_vector_a_token(teacher, name):
    with pytest.raises(KDError, match=r"'hint' compares token by token, .* without a vector .*; use level=sentence"):
        matching(name, teacher, {"hint": Hint("token")})
    with pytest.raises(KDError, match=r"no pair \[1, 2\]: for this term the student has layers 0 and the teacher"):
        matching(name, teacher, {"hint": Hint("token", layers=[[1, 2]])})


def test_the_embeddings_of_a_bag_of_words_are_vectors_a_token(teacher):
    match, student = matching("dan", teacher, {"embeddings": Hint("token", [[0, 0]])}), make_student("dan")
    batch = make_batch()
    own, other = answers(match, student, teacher, batch)["embeddings"]
    assert own.hidden_states[0].shape == other.hidden_states[0].shape == (5, 7, 16)


@pytest.mark.parametrize(("name", "layer"), [("textcnn", 2), ("bilstm", 2)])
def test_a_sentence_state_named_for_a_token_level_term_is_refused(teacher, name, layer):
    with pytest.raises(KDError, match=rf"no pair \[{layer}, 3\]: for this term the student has layers 0, 1 and"):
        matching(name, teacher, {"hint": Hint("token", layers=[[layer, 3]])})
    assert matching(name, teacher, {"hint": Hint("sentence", layers=[[layer, 3]])}).possible == {"hint": [(layer, 3)]}


def test_a_loss_may_have_pairs_of_its_own(teacher):
    losses = {"hint": Hint(), "pkd": PKD(layers="top"), "cosine": Cosine(layers=[[1, 1], [0, 2]])}
    match = matching("bilstm", teacher, losses, layers="last")
    assert match.possible == {"hint": [(1, 2), (2, 3)], "pkd": [(2, 3)], "cosine": [(1, 1), (0, 2)]}
    assert match.features == {Feature("hidden_states", layer, "mean") for layer in (1, 2, 3)}


def test_only_what_is_read_is_asked_for(teacher):
    losses = {"attention": TinyBertAttention(layers="top"), "hint": Hint(layers=[[0, 0]]), "tokens": Hint("token")}
    match = matching("transformer", teacher, losses, layers=[[1, 2]], pooling="cls", member="first")
    assert match.outputs == {"queries", "keys", "hidden_states"}
    assert match.by_token == ["attention", "tokens"]
    assert {feature.column for feature in match.features} == {
        "first.queries-3-tokens",
        "first.keys-3-tokens",
        "first.hidden_states-0-cls",
        "first.hidden_states-2-tokens",
    }


@pytest.mark.parametrize("loss", [TinyBertAttention(), MiniLM()])
def test_unequal_heads_are_refused(loss):
    student = make_bert(width=8, layers=2, heads=1)
    message = "'attention' cannot compare .*: it needs equally many attention heads, and the student has 1, the teacher"
    with pytest.raises(KDError, match=message + " 2; use minilm_v2"):
        matching(student, make_bert(), {"attention": loss})
    assert matching(student, make_bert(), {"attention": MiniLMv2(relation_heads=4)}).possible == {"attention": [(2, 3)]}
    with pytest.raises(KDError, match="relation_heads=3 must divide the hidden sizes 8 of the student and 16"):
        matching(student, make_bert(), {"attention": MiniLMv2(relation_heads=3)})


def test_a_teacher_without_layers_is_refused():
    """An assistant, for example, may be a small model without layers."""
    with pytest.raises(KDError, match=r"a teacher with transformer layers, found 'kd-dan' .*; use a transformer"):
        matching("bilstm", make_student("dan"))


# --- mappers


def test_a_mapper_brings_each_layer_to_the_teachers_width(teacher):
    match = matching("bilstm", teacher, {"hint": Hint(), "pkd": PKD(), "tokens": Hint("token")}, layers="last")
    sizes = {key: (mapper.in_size, mapper.out_size) for key, mapper in match.mappers.items()}
    assert sizes == {"1-sentence": (8, 16), "2-sentence": (16, 16), "1-token": (8, 16)}, "hint and pkd share theirs"
    assert not matching("bilstm", teacher, {"cka": CKA()}).mappers, "relations need no common width"


def test_narrow_word_vectors_of_a_teacher_come_out_as_wide_as_its_layers():
    """ELECTRA and ALBERT have a narrow word table and widen its vectors before their first hidden state."""
    sizes = {"embedding_size": 12, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = ElectraForSequenceClassification(ElectraConfig(vocab_size=50, intermediate_size=16, **sizes))
    states = model(input_ids=torch.ones(1, 3, dtype=torch.long), output_hidden_states=True).hidden_states
    torch.manual_seed(0)
    match = Matching({"hint": Hint()}, make_student("bilstm"), model.config, [[0, 0], [1, 2]])
    assert [mapper.out_size for mapper in match.mappers.values()] == [states[0].shape[-1], states[2].shape[-1]]


def test_a_shared_mapper_serves_all_layers_but_the_embeddings(teacher):
    match = matching("transformer", teacher, layers=[[0, 0], [1, 2], [2, 3]], shared=True)
    assert set(match.mappers) == {"0-sentence", "all-sentence"}
    batch, student = make_batch(), make_student("transformer")
    own, _ = answers(match, student, teacher, batch)["hint"]
    states = [vectors(state, batch, "mean") for state in states_of(student, batch)]
    for found, layer, key in zip(own.hidden_states, states, ["0-sentence", *["all-sentence"] * 2], strict=True):
        close(found, linear(match.mappers[key], layer))


def test_a_shared_mapper_needs_one_width(teacher):
    with pytest.raises(KDError, match=r"one width .*, found 6 to 16 and 10 to 16; set method.shared_mapper=false"):
        matching("dan", teacher, layers="last", shared=True)


def test_an_identity_needs_one_width(teacher):
    with pytest.raises(KDError, match=r"an identity mapper needs two equal widths, found 8 -> 16; .*mapper=linear"):
        matching("bilstm", teacher, mapper=Identity)
    match = matching("bilstm", teacher, layers=[[2, 3]], mapper=Identity)
    assert not list(match.parameters())
    batch = make_batch()
    own, _ = answers(match, make_student("bilstm"), teacher, batch)["hint"]
    close(own.hidden_states[0], states_of(make_student("bilstm"), batch)[2][:, 0])


@pytest.mark.parametrize("mapper", [MLPMapper, partial(LowRank, rank=3)])
def test_other_learned_mappers_stand_between(teacher, mapper):
    match, batch = matching("dan", teacher, layers=[[3, 3]], mapper=mapper), make_batch()
    own, other = answers(match, make_student("dan"), teacher, batch)["hint"]
    assert own.hidden_states[0].shape == other.hidden_states[0].shape == (5, 16)
    assert all(parameter.requires_grad for parameter in match.parameters())


def fitted(match, student, teacher, batches):
    """Fit a matching of one pair of layers, and return the sentence vectors that it was fitted on."""
    ((layer, other_layer),) = next(iter(match.possible.values()))
    pairs, own, other = [], [], []
    for batch in batches:
        with torch.no_grad():
            output, _ = inner(student, batch, match.outputs)
            pairs.append((output, read(teacher, batch, match.features)[1], batch["attention_mask"]))
        own.append(vectors(states_of(student, batch)[layer], batch, "mean"))
        other.append(vectors(states_of(teacher, batch)[other_layer], batch, "mean"))
    match.fit_mappers(pairs)
    return np.concatenate(own), np.concatenate(other)


BATCHES = [make_batch(20, seed=seed) for seed in (1, 2)]


def test_pca_brings_the_teacher_to_the_students_width(teacher):
    student = make_student("dan")
    match = matching(student, teacher, layers=[[3, 3]], mapper=PCA)
    assert match.unfitted()
    assert (match.mappers["3-sentence"].in_size, match.mappers["3-sentence"].out_size) == (16, 10)
    _, other = fitted(match, student, teacher, BATCHES)
    assert not match.unfitted() and not list(match.parameters())
    batch = make_batch()
    found_own, found_other = answers(match, student, teacher, batch)["hint"]
    close(found_own.hidden_states[0], states_of(student, batch)[3][:, 0])
    _, _, axes = np.linalg.svd(other - other.mean(0), full_matrices=False)
    expected = (vectors(states_of(teacher, batch)[3], batch, "mean") - other.mean(0)) @ axes[:10].T
    np.testing.assert_allclose(found_other.hidden_states[0].abs().double(), np.abs(expected), atol=1e-4)


def test_pca_never_widens():
    with pytest.raises(KDError, match="PCA gives at most as many numbers as it reads, found 4 -> 10"):
        matching("dan", make_bert(width=4), layers=[[3, 3]], mapper=PCA)


@pytest.mark.parametrize("mapper", [Procrustes, LeastSquares])
def test_pairs_of_vectors_fit_a_closed_form(teacher, mapper):
    student = make_student("dan")
    match = matching(student, teacher, layers=[[0, 3]], mapper=mapper)
    own, other = fitted(match, student, teacher, BATCHES)
    expected = mapper(6, 16).fit(own, other)
    found = match.mappers["0-sentence"]
    for name in ("weight", "bias", "origin"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=1e-4, rtol=1e-4)
    before = found.weight.clone()
    fitted(match, student, teacher, BATCHES[:1])
    assert torch.equal(found.weight, before), "what is fitted is not fitted again"


def test_only_real_tokens_are_fitted(teacher):
    student = make_student("bilstm")
    losses = {"hint": Hint("token")}
    plain = matching(student, teacher, losses, layers=[[1, 3]], mapper=LeastSquares)
    padded = matching(student, teacher, losses, layers=[[1, 3]], mapper=LeastSquares)
    for match, extra in ((plain, 0), (padded, 3)):
        batch = make_batch(20, extra=extra)
        with torch.no_grad():
            output, _ = inner(student, batch, match.outputs)
            match.fit_mappers([(output, read(teacher, batch, match.features)[1], batch["attention_mask"])])
    torch.testing.assert_close(plain.mappers["1-token"].weight, padded.mappers["1-token"].weight, atol=1e-4, rtol=1e-4)


def test_attention_pooling_weighs_the_students_tokens(teacher):
    student = make_student("bilstm")
    match = matching(student, teacher, layers="last", mapper=AttentionPooling)
    with torch.no_grad():
        match.mappers["1-sentence"].queries.normal_(std=3.0)
    batch = make_batch()
    own, other = answers(match, student, teacher, batch)["hint"]
    states, mapper = states_of(student, batch), match.mappers["1-sentence"]
    means = []
    for row, length in zip(states[1], batch["attention_mask"].sum(1).tolist(), strict=True):
        scores = row[:length] @ mapper.queries[0].detach().double().numpy() / np.sqrt(8)
        shares = np.exp(scores - scores.max())
        means.append(shares / shares.sum() @ row[:length])
    close(own.hidden_states[0], linear(mapper, np.stack(means)))
    close(own.hidden_states[1], linear(match.mappers["2-sentence"], states[2][:, 0]))
    close(other.hidden_states[0], vectors(states_of(teacher, batch)[2], batch, "mean"))


def test_attention_pooling_has_nothing_for_tokens(teacher):
    with pytest.raises(KDError, match=r"'attention_pooling', which gives one vector .*mapper=linear or level=sent"):
        matching("bilstm", teacher, {"hint": Hint("token")}, mapper=AttentionPooling)


# --- random pairs


def test_random_pairs_differ_from_step_to_step_and_come_from_torchs_seed(teacher):
    match = matching("bilstm", teacher, layers="random")
    assert match.possible["hint"] == [(own, other) for own in (1, 2) for other in (1, 2, 3)]
    assert match.features == {Feature("hidden_states", layer, "mean") for layer in (1, 2, 3)}
    torch.manual_seed(5)
    drawn = [match.pairs("hint") for _ in range(30)]
    assert {tuple(pairs) for pairs in drawn} == {((1, 1), (2, 2)), ((1, 1), (2, 3)), ((1, 2), (2, 3))}
    torch.manual_seed(5)
    assert [match.pairs("hint") for _ in range(30)] == drawn


def test_both_sides_of_a_random_draw_are_of_the_same_pairs(teacher):
    match, student, batch = matching("bilstm", teacher, layers="random"), make_student("bilstm"), make_batch()
    states = [vectors(state, batch, "mean") for state in states_of(teacher, batch)]
    seen = set()
    for seed in range(8):
        torch.manual_seed(seed)
        own, other = answers(match, student, teacher, batch)["hint"]
        torch.manual_seed(seed)
        pairs = match.pairs("hint")
        for found, (_, layer) in zip(other.hidden_states, pairs, strict=True):
            close(found, states[layer])
        assert len(own.hidden_states) == 2
        seen.add(tuple(pairs))
    assert len(seen) > 1


# --- variances


def test_variances_are_positive_parameters_of_the_compared_width(teacher):
    student, batch = make_student("dan"), make_batch()
    match = matching(student, teacher, {"vid": VID()}, layers=[[1, 2], [3, 3]])
    assert {key: value.shape for key, value in match.variances.items()} == {"1-sentence": (16,), "3-sentence": (16,)}
    own, other = answers(match, student, teacher, batch)["vid"]
    assert other.variances == ()
    torch.testing.assert_close(own.variances, (torch.full((16,), 5.0),) * 2)
    with torch.no_grad():
        match.variances["3-sentence"].fill_(-50.0)
        match.variances["1-sentence"].copy_(torch.linspace(-2, 2, 16))
    own, other = answers(match, student, teacher, batch)["vid"]
    torch.testing.assert_close(own.variances[0], functional.softplus(torch.linspace(-2, 2, 16)) + 1e-5)
    assert (own.variances[1] > 0).all() and VID()(own, other, batch).isfinite()


def test_variances_of_reduced_teacher_features(teacher):
    """PCA maps to the student's width, and there are as many variances."""
    student = make_student("dan")
    match = matching(student, teacher, {"vid": VID()}, layers=[[3, 3]], mapper=PCA)
    fitted(match, student, teacher, BATCHES)
    own, other = answers(match, student, teacher, make_batch())["vid"]
    assert own.variances[0].shape == (10,) and VID()(own, other, make_batch()).isfinite()


# --- what the losses read


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("name", STUDENTS)
def test_sentence_vectors_are_those_of_the_models(teacher, name, pooling):
    student, batch = make_student(name), make_batch()
    pairs = [[2, 3], [1, 1], [0, 2]]
    match = matching(student, teacher, layers=pairs, pooling=pooling)
    own, other = answers(match, student, teacher, batch)["hint"]
    mine, theirs = states_of(student, batch), states_of(teacher, batch)
    expected = []
    for (layer, other_layer), found, found_other in zip(pairs, own.hidden_states, other.hidden_states, strict=True):
        mapped = linear(match.mappers[f"{layer}-sentence"], vectors(mine[layer], batch, pooling))
        vector = vectors(theirs[other_layer], batch, pooling)
        close(found, mapped)
        close(found_other, vector)
        expected.append(((mapped - vector) ** 2).mean())
    assert Hint()(own, other, batch).item() == pytest.approx(np.mean(expected), rel=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(own.logits, student(**batch).logits)
        torch.testing.assert_close(other.logits, teacher(**batch).logits)


@pytest.mark.parametrize("name", ["textcnn", "bilstm", "transformer"])
def test_token_vectors_are_those_of_the_models(teacher, name):
    student, batch = make_student(name), make_batch()
    losses = {"hint": Hint("token"), "transfer": AttentionTransfer()}
    found = answers(matching(student, teacher, losses, layers=[[1, 2]]), student, teacher, batch)
    match = matching(student, teacher, losses, layers=[[1, 2]])
    mine, theirs = states_of(student, batch)[1], states_of(teacher, batch)[2]
    mapped, real = linear(match.mappers["1-token"], mine), batch["attention_mask"].bool().numpy()
    own, other = found["hint"]
    np.testing.assert_allclose(own.hidden_states[0].numpy()[real], mapped[real], atol=2e-6)
    np.testing.assert_allclose(other.hidden_states[0].numpy()[real], theirs[real], atol=2e-6)
    expected = ((mapped - theirs)[real] ** 2).mean()
    assert losses["hint"](own, other, batch).item() == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(found["transfer"][0].hidden_states[0].numpy()[real], mine[real], atol=2e-6)


def test_attention_is_that_of_the_paired_layers(teacher):
    student, batch = make_student("transformer"), make_batch()
    pairs = [[2, 3], [1, 1]]
    losses = {"minilm": MiniLM(layers=pairs)}
    match = matching(student, teacher, losses)
    assert not match.mappers
    own, other = answers(match, student, teacher, batch)["minilm"]
    real = batch["attention_mask"].bool()
    for model, answer, layers in ((student, own, (2, 1)), (teacher, other, (3, 1))):
        states = [torch.from_numpy(state).float() for state in states_of(model, batch)]
        for place, layer in enumerate(layers):
            attention = model.bert.encoder.layer[layer - 1].attention.self
            for part, output in (("query", "queries"), ("key", "keys"), ("value", "values")):
                with torch.no_grad():
                    flat = getattr(attention, part)(states[layer - 1])
                found = getattr(answer, output)[place]
                assert found.shape == (5, 2, 7, flat.shape[-1] // 2)
                heads = torch.stack(flat.chunk(2, dim=-1), dim=1)  # [B, H, L, d_head]
                found, heads = found.transpose(1, 2)[real], heads.transpose(1, 2)[real]
                torch.testing.assert_close(found, heads, atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", STUDENTS)
def test_padding_changes_no_answer(teacher, name):
    student = make_student(name)
    losses = {"hint": Hint(), "cls": PKD(), "vid": VID()}
    tokens = {"tokens": Hint("token"), "transfer": AttentionTransfer()} if name not in ("mlp", "dan") else {}
    tokens |= {"minilm": MiniLM()} if name == "transformer" else {}
    for pooling in ("mean", "cls"):
        match = matching(student, teacher, losses | tokens, layers=[[1, 3]], pooling=pooling)
        short, long = make_batch(), make_batch(extra=4)
        found = answers(match, student, teacher, short), answers(match, student, teacher, long)
        for term, loss in match.losses.items():
            one, two = (loss(*pair[term], batch) for pair, batch in zip(found, (short, long), strict=True))
            torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_text_without_tokens_is_the_same_in_every_batch(teacher, pooling):
    """Also in a batch of one column of padding."""
    student = make_student("textcnn")
    match = matching(student, teacher, layers=[[0, 1], [1, 2]], pooling=pooling)
    ids, mask = torch.tensor([[3, 4, 5], [0, 0, 0]]), torch.tensor([[1, 1, 1], [0, 0, 0]])
    whole = answers(match, student, teacher, {"input_ids": ids, "attention_mask": mask})["hint"]
    alone = answers(match, student, teacher, {"input_ids": ids[1:, :1], "attention_mask": mask[1:, :1]})["hint"]
    for many, one in zip(whole, alone, strict=True):
        for state, single in zip(many.hidden_states, one.hidden_states, strict=True):
            torch.testing.assert_close(state[1:], single)


def test_columns_in_half_precision_are_read_in_full(teacher):
    student, batch = make_student("transformer"), make_batch()
    losses = {"hint": Hint("token"), "minilm": MiniLM()}
    match = matching(student, teacher, losses, layers="last")
    whole = answers(match, student, teacher, batch)
    with torch.no_grad():
        output, attention = inner(student, batch, match.outputs)
        logits, found = read(teacher, batch, match.features)
        halves = {feature: value.half() for feature, value in found.items()}
        stored = match(output, attention, logits, halves, batch["attention_mask"])
    for term, (_, other) in stored.items():
        parts = [value for value in (other.hidden_states, other.queries, other.values) if value]
        assert all(value.dtype == torch.float32 for part in parts for value in part)
        one, two = match.losses[term](*whole[term], batch), match.losses[term](*stored[term], batch)
        torch.testing.assert_close(one, two, atol=1e-3, rtol=1e-2)
