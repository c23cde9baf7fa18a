"""The errors that a user reads."""

from kd.errors import KDError, OptionError


def test_an_option_error_says_what_was_expected_and_found_and_where():
    error = OptionError("weight", "a number of at least 0", -1)
    assert isinstance(error, KDError)
    assert str(error).startswith("weight must be a number of at least 0, found -1; ")
    placed = error.at("loss.hint")
    assert str(placed).startswith("loss.hint.weight must be a number of at least 0, found -1; ")
    assert str(error.at("")) == str(error)
