"""The schemas of the files that kd reads back."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kd.errors import KDError
from kd.storage import cache_records, records

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=5), part, max_size=3),
    max_leaves=8,
)
KINDS = [
    kind
    for kind in (vars(records) | vars(cache_records)).values()
    if isinstance(kind, type) and issubclass(kind, records.Record)
]


def test_what_is_written_is_read(tmp_path):
    content = {"state": "done", "identity": "a", "products": {"model/x": "0" * 64}, "time": "now"}
    records.write(tmp_path / "status.json", content)
    assert records.read(tmp_path / "status.json", records.Status) == content


def test_a_changed_value_does_not_match_the_seal(tmp_path):
    path = tmp_path / "status.json"
    records.write(path, {"state": "done", "identity": "abc"})
    path.write_text(path.read_text().replace("abc", "abd"))
    with pytest.raises(KDError, match="is damaged: it does not match its own checksum"):
        records.read(path, records.Status)


def test_what_can_be_made_again_needs_a_seal(tmp_path):
    path = tmp_path / "status.json"
    path.write_text('{"state": "done"}')
    assert records.read(path, records.Status)
    with pytest.raises(KDError, match="does not match its own checksum"):
        records.read(path, records.Status, sealed=True)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(kind=st.sampled_from(KINDS), content=JSON, key=st.data())
def test_any_json_is_whole_or_refused(tmp_path_factory, kind, content, key):
    path = tmp_path_factory.getbasetemp() / "any.json"
    name = key.draw(st.sampled_from([field.alias or name for name, field in kind.model_fields.items()] or ["x"]))
    path.write_text(json.dumps({name: content}))
    try:
        assert set(records.read(path, kind)) <= {name}
    except KDError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data: ${oc.env:HOME}", "found the interpolation"),
        ("data: {'${x}': 1}", "found the interpolation"),
        ("a: 1", "found something else"),
        ("data: &x [1]\nb: *x", r"line 2 has the alias \*x"),
        ("data: " + "[" * 50_000, "line 1 has more than 50 levels"),
        ("data: !!binary aGk=", "could not determine a constructor"),
        ("data: " + "9" * 400, "has 400 digits"),
    ],
)
def test_a_configuration_is_plain_and_resolved(tmp_path, text, said):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(KDError, match=said):
        records.read_configuration(tmp_path / "config.yaml")


def test_deep_json_and_long_numbers_are_refused(tmp_path):
    for text in ('{"a": ' + "[" * 100_000, '{"a": ' + "9" * 400 + "}", "[]", "", "\xff"):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(KDError, match=r"a\.json"):
            records.read(tmp_path / "a.json", records.Sweep)
