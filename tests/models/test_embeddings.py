"""The initialisation of the word table."""

import gzip
import logging

import numpy
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizer

from kd.data.tokenizers import TeacherTokenizer, WordTokenizer
from kd.errors import KDError
from kd.models.embeddings import (
    OwnEmbeddings,
    RandomEmbeddings,
    TeacherEmbeddings,
    TeacherTable,
    VectorFile,
    principal_components,
    read_vectors,
    teacher_rows,
)
from kd.options.declared import options_of

TEXTS = ["a fine film", "a dull film", "the finest film", "dull , dull"]


def seeded():
    return torch.Generator().manual_seed(1)


def initial(way, table, tokenizer, teacher, generator=None):
    return way.start(table, tokenizer, way.known(table.shape[1], tokenizer, teacher), generator)


def word_piece_tokenizer():
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = ["very", "film", "fine", "##ly", "##s", "the", "a", "dull", "bad", "d", "##u", "##l"]
    return BertTokenizer(vocab={token: number for number, token in enumerate(special + pieces)})


@pytest.fixture(scope="module")
def teacher():
    tokenizer = WordTokenizer(min_count=1)([*TEXTS, "other words that no text of the student has"])
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=6,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
    )
    return TeacherTable(BertModel(config).get_input_embeddings().weight.detach(), tokenizer)


@pytest.fixture(scope="module")
def words():
    return WordTokenizer(min_count=1)(TEXTS)


@pytest.mark.parametrize("way", [RandomEmbeddings(std=0.2), TeacherEmbeddings(std=0.2)])
def test_tables_have_the_std_a_zero_padding_row_and_follow_the_generator(way, words, teacher):
    table = torch.zeros(len(words), 5)
    start = initial(way, table, words, teacher, seeded())
    assert start.shape == table.shape and start.dtype == torch.float32
    assert start[words.pad_token_id].abs().sum() == 0
    assert start[1:].std().item() == pytest.approx(0.2, rel=0.25)
    assert torch.equal(start, initial(way, table, words, teacher, seeded()))


@pytest.mark.parametrize("way", [RandomEmbeddings, TeacherEmbeddings, VectorFile])
def test_every_option_is_declared_with_a_meaning(way):
    options = options_of(way)
    assert "std" in options and all(option.meaning for option in options.values())


def test_own_embeddings_are_left_alone(words):
    table = torch.randn(len(words), 4)
    assert torch.equal(initial(OwnEmbeddings(), table, words, None), table)


def test_principal_components_keep_inner_products_as_the_best_approximation_does():
    rows = numpy.random.default_rng(0).normal(size=(50, 8)) * numpy.arange(1, 9) + 1.0
    reduced = principal_components(torch.tensor(rows, dtype=torch.float32), 3).double().numpy()
    left, sizes, right = numpy.linalg.svd(rows, full_matrices=False)
    best = (left[:, :3] * sizes[:3]) @ right[:3]
    numpy.testing.assert_allclose(reduced @ reduced.T, best @ best.T, rtol=1e-4, atol=1e-3)
    whole = principal_components(torch.tensor(rows), 8).double().numpy()
    numpy.testing.assert_allclose(whole @ whole.T, rows @ rows.T, rtol=1e-4, atol=1e-3)


def test_teacher_rows_go_to_the_same_tokens(words, teacher):
    start = initial(TeacherEmbeddings(std=None), torch.zeros(len(words), 6), words, teacher, seeded())
    pieces = teacher.tokenizer.get_vocab()
    tokens = [token for token in words.get_vocab() if token != "[PAD]"]
    mine = start[[words.get_vocab()[token] for token in tokens]]
    theirs = teacher.weight[[pieces[token] for token in tokens]]
    torch.testing.assert_close(mine @ mine.T, theirs @ theirs.T, atol=1e-5, rtol=1e-4)


def test_words_that_are_no_piece_take_the_mean_of_their_pieces():
    pieces = word_piece_tokenizer()
    table = TeacherTable(torch.randn(len(pieces), 6, generator=seeded()), pieces)
    words = WordTokenizer(min_count=1)(["filmly film unknown"])
    rows = teacher_rows(words, table)
    ids = words.get_vocab()
    assert set(rows) == set(ids.values()) - {ids["unknown"]}
    assert list(rows) == sorted(rows)
    torch.testing.assert_close(rows[ids["film"]], table.weight[6])
    torch.testing.assert_close(rows[ids["filmly"]], (table.weight[6] + table.weight[8]) / 2)


def test_only_rows_in_use_shape_the_components(words, teacher):
    other = teacher.weight.clone()
    used = set(words.get_vocab())
    for token, row in teacher.tokenizer.get_vocab().items():
        if token not in used:
            other[row] = 1000.0
    arguments = torch.zeros(len(words), 3), words
    changed = initial(TeacherEmbeddings(), *arguments, TeacherTable(other, teacher.tokenizer), seeded())
    torch.testing.assert_close(changed, initial(TeacherEmbeddings(), *arguments, teacher, seeded()))


def test_pca_refuses_what_it_cannot_do(words, teacher):
    with pytest.raises(KDError, match=r"embeddings=pca needs a teacher; set teacher=\.\.\. or embeddings=random"):
        initial(TeacherEmbeddings(), torch.zeros(len(words), 3), words, None)
    with pytest.raises(KDError, match=r"teacher's width 6, found a student's table of width 7"):
        initial(TeacherEmbeddings(), torch.zeros(len(words), 7), words, teacher)
    few = WordTokenizer(min_count=1)(["film"])
    with pytest.raises(KDError, match="needs at least 6 tokens"):
        initial(TeacherEmbeddings(), torch.zeros(len(few), 6), few, teacher)
    with pytest.raises(KDError, match=r"std must be a number in \[1e-06, 100\], found 0\.0"):
        RandomEmbeddings(std=0.0)
    with pytest.raises(KDError, match=r"std must be a number in \[1e-06, 100\] or null, found -1"):
        VectorFile("vectors.txt", std=-1)


def test_restricted_vocabulary_keeps_its_pieces_rows():
    pieces = word_piece_tokenizer()
    restricted = TeacherTokenizer(restrict=True)(TEXTS, pieces)
    table = TeacherTable(torch.randn(len(pieces), 4, generator=seeded()), pieces)
    start = initial(TeacherEmbeddings(std=None), torch.zeros(len(restricted), 4), restricted, table, seeded())
    film = table.weight[pieces.convert_tokens_to_ids("film")]
    mine = start[restricted.convert_tokens_to_ids("film")]
    assert mine.norm().item() == pytest.approx(film.norm().item(), rel=1e-4)


@pytest.mark.parametrize("header", ["", "4 3\n"])
@pytest.mark.parametrize("packed", [False, True])
def test_vector_files_fill_the_rows_they_know(header, packed, words, tmp_path, caplog):
    text = header + "film 1 2 3\ndull -1 -2.5 3e-1\n. . . 9 9 9\nelsewhere 7 7 7\nfilm 5 5 5\n"
    path = tmp_path / ("vectors.txt.gz" if packed else "vectors.txt")
    (gzip.open if packed else open)(path, "wt", encoding="utf-8").write(text)
    with caplog.at_level(logging.INFO):
        way = VectorFile(str(path), std=None)
        start = initial(way, torch.zeros(len(words), 3), words, None, seeded())
    ids = words.get_vocab()
    assert start[ids["film"]].tolist() == [1, 2, 3]
    torch.testing.assert_close(start[ids["dull"]], torch.tensor([-1, -2.5, 0.3]))
    assert start[ids["fine"]].abs().sum() > 0
    assert start[words.pad_token_id].abs().sum() == 0
    scaled = initial(VectorFile(str(path), std=0.1), torch.zeros(len(words), 3), words, None, seeded())
    both = [ids["film"], ids["dull"]]
    assert scaled[both].std().item() == pytest.approx(0.1, rel=1e-4)
    assert torch.corrcoef(torch.stack([scaled[both].flatten(), start[both].flatten()])).min() > 0.9999
    assert f"covers 2 of {len(words)} words" in caplog.text


def test_vector_files_keep_only_the_vocabulary(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("film 1 2\nother 3 4\n\x85 5 6\nnext 7 8\n", encoding="utf-8")
    vectors, width = read_vectors(str(path), {"film", "next"})
    assert set(vectors) == {"film", "next"} and width == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("film 1 2 3 4\n", r"width 3, as the student's table, found width 4 .*; set student.embedding_size=4"),
        ("film 1 2 3\ndull 1 2\n", "line 2: expected a word and 3 numbers"),
        ("film 1 2 3\ndull 1 x 3\n", "line 2: expected a word and 3 numbers"),
        ("film\n", "line 1: expected a word"),
        ("", "holds no vectors"),
        ("2 3\n", "holds no vectors"),
        ("elsewhere 1 2 3\n", "expected vectors for words of the vocabulary .*, found 0 of"),
    ],
)
def test_bad_vector_files_are_refused(text, message, words, tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(KDError, match=message):
        initial(VectorFile(str(path)), torch.zeros(len(words), 3), words, None)


def test_missing_and_broken_files_are_refused(words, tmp_path):
    broken = tmp_path / "vectors.txt.gz"
    broken.write_bytes(gzip.compress(b"film 1 2 3\n" * 1000)[:-20])
    for path in (broken, tmp_path / "nothing.txt"):
        with pytest.raises(KDError, match="cannot read the word vectors"):
            initial(VectorFile(str(path)), torch.zeros(len(words), 3), words, None)
