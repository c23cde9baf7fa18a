"""Where ``conf/`` lies, and Hydra's messages as one sentence."""

import pytest
from omegaconf.errors import OmegaConfBaseException

from kd.config.folder import configuration_folder, one_sentence, overrides
from kd.errors import KDError


def test_the_folder_holds_the_configuration():
    assert (configuration_folder() / "config.yaml").is_file()


def test_several_lines_and_their_cause_become_one_sentence():
    error = ValueError("Could not override 'x'.\n  To append use +x")
    error.__cause__ = OmegaConfBaseException("Key 'x' is not in struct\n    full_key: x")
    assert one_sentence(error) == "x: there is no such option; kd train --help lists the options"
    error.__cause__ = OmegaConfBaseException("Key 'y' is not in struct\n    full_key: x")
    assert one_sentence(error) == "Could not override 'x'. To append use +x: Key 'y' is not in struct"


@pytest.mark.parametrize(
    ("word", "read"),
    [
        ("data.path=数据/评论.csv", "data.path='数据/评论.csv'"),
        ("data.label_names=[负面, 正面]", "data.label_names=['负面','正面']"),
        ("data.path=é.csv,ü.csv", "data.path='é.csv','ü.csv'"),  # a sweep stays a sweep
        ("data.path=film (1).csv", "data.path='film (1).csv'"),
        ("data.path=l'été.csv", r"data.path='l\'été.csv'"),
        ("data.path=~/a&b;c#d.csv", "data.path='~/a&b;c#d.csv'"),
        ("+data.where.a=b=c", "+data.where.a='b=c'"),
    ],
)
def test_a_value_in_any_script_is_quoted(word, read):
    assert overrides([word]) == [read]


@pytest.mark.parametrize(
    "word",
    [
        *("alpha=0.1,0.5", "alpha=range(0.1,1.0,0.1)", "a=choice(é,b)", "a={é: b}", "data.path=${x}é", "data.path='é'"),
        *("~teacher", "-m", "data.path=", "x=[", "loss=[soft_target,hint]", "a=C:\\x", "a='é", "--config-dir=é"),
    ],
)
def test_other_words_stay_as_they_are(word):
    assert overrides([word]) == [word]


def test_a_value_that_would_keep_the_parser_busy_is_refused():
    with pytest.raises(KDError, match=r"data\.where: expected at most 50 levels of lists and keys"):
        overrides(["data.where=" + "[" * 10_000])
