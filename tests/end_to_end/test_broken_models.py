"""Model folders that are broken in one place: each command answers, or refuses them in one sentence."""

import copy
import json
import math
import shutil
from datetime import timedelta

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from kd.errors import KDError
from kd.predictor import Predictor
from kd.storage.model_check import check_pair
from kd.storage.model_folder import load_classifier, load_tokenizer
from tests.conftest import make_teacher

TEXTS = ["a very dull film", "", "the story is warm, and the actors are “funny” 数据 👍", "word " * 200]

NUMBERS = [0, 1, -5, 3, 2.5, 10**7, 10**12, 10**30, math.inf, math.nan]
VALUES = [None, True, *NUMBERS, "", "x", "[PAD]", [], [1], {}, {"a": 1}]


def places(content, place=()):
    """Yield the place of every value in a JSON document; of a long list or vocabulary the first three."""
    items = list(
        content.items() if isinstance(content, dict) else enumerate(content if isinstance(content, list) else [])
    )
    for key, value in items[: 3 if len(items) > 40 else None]:
        yield (*place, key)
        yield from places(value, (*place, key))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_teacher(tmp_path_factory.mktemp("whole"))


def answers(folder) -> bool:
    """Return whether the folder is used, as a classifier and as a backbone; anything but a `KDError` is a fault."""
    used = 0
    for use in (as_classifier, as_backbone):
        try:
            use(folder)
            used += 1
        except KDError as error:
            said = str(error)
            assert "\n" not in said and len(said) < 800
    return used > 0


def as_classifier(folder):
    assert np.isfinite(Predictor.load(folder).probabilities(TEXTS)).all()


def as_backbone(folder):
    tokenizer, model = load_tokenizer(folder), load_classifier(folder, new_head=True, label_names="abc")
    check_pair(folder, model, tokenizer, 24)


def test_a_folder_with_any_wrong_setting_is_used_or_refused_in_one_sentence(whole, tmp_path):
    names = ("config.json", "tokenizer_config.json", "tokenizer.json")
    contents = {name: json.loads((whole / name).read_text()) for name in names}
    keys = [st.sampled_from([(name, place) for place in places(contents[name])]) for name in names]
    count = {True: 0, False: 0}
    folder = shutil.copytree(whole, tmp_path / "model")

    @settings(
        max_examples=50,
        deadline=timedelta(seconds=5),
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.one_of(keys), st.sampled_from([*VALUES, "without it"]))
    def attempt(key, value):
        name, (*place, last) = key
        content = copy.deepcopy(contents[name])
        part = content
        for step in place:
            part = part[step]
        if value == "without it":
            del part[last]
        else:
            part[last] = value
        (folder / name).write_text(json.dumps(content))
        try:
            count[answers(folder)] += 1
        finally:
            shutil.copy(whole / name, folder / name)

    attempt()
    print(f"{sum(count.values())} folders tried: {count[True]} used, {count[False]} refused")
    assert min(count.values()) > 10


def test_a_folder_with_any_wrong_tensor_is_refused_in_one_sentence(whole, tmp_path):
    weights = load_file(whole / "model.safetensors")
    folder = shutil.copytree(whole, tmp_path / "model")
    changes = {
        "nan": lambda value: torch.full_like(value, math.nan),
        "infinite": lambda value: value.flatten().index_fill(0, torch.tensor(0), -math.inf).view_as(value),
        "longer": lambda value: torch.cat([value, value]),
        "flat": lambda value: value.reshape(1, *value.shape),
        "missing": lambda value: None,
    }
    tried = []

    @settings(max_examples=25, deadline=timedelta(seconds=5), database=None, derandomize=True)
    @given(st.sampled_from(sorted(weights)), st.sampled_from(sorted(changes)))
    def attempt(name, change):
        changed = weights | {name: changes[change](weights[name])}
        save_file({key: value for key, value in changed.items() if value is not None}, folder / "model.safetensors")
        with pytest.raises(KDError) as error:
            as_classifier(folder)
        assert name in str(error.value) or change in ("longer", "flat")
        tried.append((name, change))

    attempt()
    print(f"{len(tried)} tensors tried: {len(tried)} refused")
