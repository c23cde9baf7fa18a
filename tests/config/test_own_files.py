"""The user's own YAML files are looked at before they are parsed."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from kd.config.compose import composed
from kd.errors import KDError

STUDENT = "_target_: kd.models.bow.DANConfig\nhidden_size: &width 7\nembedding_size: *width\n"


def own(tmp_path, content: bytes):
    (tmp_path / "student").mkdir(exist_ok=True)
    (tmp_path / "student" / "mine.yaml").write_bytes(content)
    return composed(["student=mine"], tmp_path)


def test_a_small_alias_works_and_a_file_that_cannot_be_read_is_named(tmp_path):
    config = own(tmp_path, STUDENT.encode())
    assert config.student.hidden_size == config.student.embedding_size == 7
    for content in (b"a: [1\n", b"a: \xe9\n", b"a:\n\tb: 1\n", b"[" * 50_000, b"a: \x00"):
        with pytest.raises(KDError, match=r"expected a YAML file in UTF-8 at '.*mine\.yaml', found one that cannot"):
            own(tmp_path, content)


VALUES = st.one_of(
    st.sampled_from(["1", "x", "[]", "{}", "null", "true", "~", "!!binary YQ==", "!!set {a}", "2020-01-01"]),
    st.sampled_from(["*x", "&x 1", "&x [*x]", "!!python/object:os.system x", "${seed}", "${", "${a.b}", "???", "!x y"]),
)
KEYS = st.sampled_from(
    ["a", "1", "null", "true", "? [a]", "<<", "_target_", "defaults", "hidden_size", "''", "a.b", "hydra", '"\\n"', "é"]
)
LINES = st.lists(st.tuples(KEYS, VALUES, st.sampled_from(["", "", "  ", "\t", "- "])), min_size=1, max_size=5)


@settings(max_examples=15, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(lines=LINES, package=st.sampled_from(["", "# @package _global_\n", "# @package a.b\n", "# @package\n"]))
def test_whatever_stands_in_an_own_file_it_works_or_is_one_sentence(tmp_path, lines, package):
    text = package + "".join(f"{indent}{key}: {value}\n" for key, value, indent in lines)
    try:
        own(tmp_path, text.encode())
    except KDError as error:
        assert "\n" not in str(error)
