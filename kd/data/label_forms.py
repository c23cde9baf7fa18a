"""Find out what a value of a label column looks like: a number, a list, a date, or what a program prints."""

from __future__ import annotations

import ast
import re
import unicodedata
from typing import Any

from kd.errors import KDError

MISSING = frozenset(
    {
        *("nan", "nat", "none", "null", "nil", "na", "n/a", "<na>", "#n/a", "#na", "-1", "-", "--", "?", "missing"),
        *("#div/0!", "#name?", "#null!", "#num!", "#ref!", "#value!"),
    }
)
"""What programs write for no value or an error, in small letters."""
FRACTION_OR_AMOUNT = re.compile(
    r"[$€£¥]?\s?[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?\s?[%‰€]?|[+-]?inf(inity)?", re.I
)
LONGEST = 400
"""Characters of the longest value that may be one of these forms."""
NUMBER = r"[+-]?\d+(?:\.\d+)?"
NUMBERS = re.compile(rf"{NUMBER}(?:\s*[,;|/\t ]\s*{NUMBER})+")
HOT = re.compile(r"\s*[,;|/\t ]\s*")
PRINTED = re.compile(
    r"""(?:np|numpy|torch|tf|jnp|jax|pd|pandas|pa|pyarrow|datetime|decimal)\.[\w.]+\(.*\)  # np.int64(1)
    | (?:tensor|array|Tensor|EagerTensor|DeviceArray|Decimal|Fraction|Timestamp|Timedelta|Series|Index|Period|Interval
       |Categorical|u?int\d*|float\d*|bool_?|str_?|bytes|list|tuple|dict|set|frozenset|ClassLabel|Counter)\(.*\)
    | (?:np\.|numpy\.)?(?:True|False)_
    | <[\w. ]+(?:[:=]|\ object\ at\ |\ at\ 0x).*>                                         # <Label.POS: 1>
    | [uU]?'[^']*' | [uU]?"[^"]*"                                                         # 'pos' with its quotes
    """,
    re.VERBOSE | re.DOTALL,
)
CALL = re.compile(r"([A-Za-z_][\w.]*)\(.*\)", re.DOTALL)
DAY = r"(?:\d{4}([-/.])\d{1,2}\1\d{1,2}|\d{1,2}([-/.])\d{1,2}\2(?:\d{4}|\d{2})|\d{1,2} [A-Z][a-z]{2,8}\.? \d{4}"
DAY += r"|[A-Z][a-z]{2,8}\.? \d{1,2}, \d{4})"
TIME = r"\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?:\s?[AaPp][Mm])?(?:\s?(?:Z|UTC|GMT|[+-]\d{2}:?\d{2}))?"
DATE = re.compile(rf"(?:[A-Z][a-z]{{2}}, )?{DAY}(?:[T ,]+{TIME})?|{TIME}")


def text_of(value: Any, file: str, line: int) -> str:
    """Return a label as text, and a whole number without its fraction (1.0 -> 1).

    Raises:
        KDError: it is a list, an object or bytes, or such a thing as Python writes it.
    """
    if value is None or value != value:
        return ""
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    kind = type(value).__name__ if isinstance(value, list | tuple | set | dict | bytes) else None
    text = str(value).strip()
    kind = kind or _written_as(text)
    if kind:
        raise KDError(
            f"{file}, line {line}: label {short(text)} is a {kind}"
            + (" (multi-label)" if kind not in ("dict", "bytes") else "")
            + "; expected one name or number in each row; write one label, or set data.label to another column"
        )
    if text[-1:] == "0" and (whole := re.fullmatch(r"(-?\d+)\.0+", text)):
        return whole[1]
    return text


def _written_as(text: str) -> str | None:
    """Return the type of a list, an object or bytes that is written as Python or JSON writes it.

    >>> _written_as("['pos']"), _written_as("b'neg'"), _written_as("(good)"), _written_as("[1 0]")
    ('list', 'bytes', None, 'list')
    """
    if text[:1] not in ("[", "(", "{", "b", "B") or text[-1:] not in ("]", ")", "}", "'", '"'):
        return None
    try:
        found = ast.literal_eval(re.sub(r"\b(true|false|null)\b", "None", text))
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return "list" if re.fullmatch(r"\[[-\d.,\s]*\]", text) else None
    return type(found).__name__ if isinstance(found, list | tuple | set | dict | bytes) else None


def foreign(values: list[str]) -> tuple[str, str, list[str]] | None:
    """Return what the values of a column are instead of classes, what to do, and which of them; None if they may be.

    >>> foreign(["np.int64(0)", "np.int64(1)"])[0], foreign(["0 1", "1 0"])[0], foreign(["2020-01-31", "2021-01-31"])[0]
    ('what a program prints for an object', 'a 1 among zeros (one-hot)', 'dates or times')
    >>> foreign(["film(s)", "song(s)"]), foreign(["18-25", "26-40"]), foreign(["<unk>", "24/7"])
    (None, None, None)
    """
    write = "write the number or the name alone"
    if max(map(len, values)) > LONGEST:  # no such thing, and the patterns would take long
        return None
    printed = [text for text in values if PRINTED.fullmatch(text)]
    heads = {found[1] if (found := CALL.fullmatch(text)) else None for text in values}
    if printed or (len(heads) == 1 and None not in heads):
        return "what a program prints for an object", write, printed or values
    dates = [text for text in values if DATE.fullmatch(text)]
    if dates and len(dates) == len([text for text in values if text.casefold() not in MISSING]):
        return "dates or times", "set data.label to the column of the labels", dates
    several = list(filter(NUMBERS.fullmatch, values))
    parts = [HOT.split(text) for text in several]
    if parts and len(several) == len(values) and len({len(part) for part in parts}) == 1:
        if all(sorted(map(float, part)) == [0.0] * (len(part) - 1) + [1.0] for part in parts):
            return "a 1 among zeros (one-hot)", "write the position of the 1", values
        if not all(_is_pair_of_a_scale(text) or is_number(text) for text in several):
            return "several numbers in one cell (multi-label)", "write one label in each row", values
    return None


def _is_pair_of_a_scale(text: str) -> bool:
    """Return whether a text is a mark on a scale, such as 4/5, which is one value."""
    return re.fullmatch(r"\d+\s?/\s?\d+", text) is not None


def form(text: str) -> str:
    """Return a name without the difference between letters, spaces and marks that cannot be seen; a number as such.

    >>> form("Very\\u00a0Good"), form("01"), form("+1") == form("1,0"), form("pos\\u200b")
    ('very good', '1.0', True, 'pos')
    """
    text = "".join(mark for mark in unicodedata.normalize("NFKC", text) if unicodedata.category(mark) != "Cf")
    if is_number(text) and len(text) < 16:
        return str(float(text.replace(",", ".")))
    return " ".join(text.casefold().split())


def is_id(text: str, count: int) -> bool:
    """Return whether a text is one of the ids from 0 to ``count`` - 1."""
    return text.isdecimal() and len(text) < 10 and int(text) < count


def is_integer(text: str) -> bool:
    """Return whether a text is a whole number."""
    return text.removeprefix("-").removeprefix("+").isdecimal() and len(text) < 20 and "-+" not in text


def is_number(text: str) -> bool:
    """Return whether a text is a finite number, also with a decimal comma or an exponent.

    >>> is_number("-1"), is_number("0,5"), is_number("1e-3"), is_number("nan"), is_number("1_0")
    (True, True, True, False, False)
    """
    return re.fullmatch(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?", text) is not None


def is_measured(text: str) -> bool:
    """Return whether a text is a number with a fraction, a share, an amount of money, or infinite.

    >>> is_measured("0.5"), is_measured("10 %"), is_measured("$3"), is_measured("-inf"), is_measured("7")
    (True, True, True, True, False)
    """
    return FRACTION_OR_AMOUNT.fullmatch(text) is not None and not is_integer(text)


def short(text: str) -> str:
    """Return a value in quotes, cut after 60 characters."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
