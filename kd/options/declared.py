"""Read the declaration of an option from the signature that takes it, and check values. Needs no torch.

An option is declared once: as a parameter of a constructor, function or dataclass. Its annotation gives the type and
the range, ``Args`` in the docstring gives the meaning, and ``conf/`` gives the default:

>>> def train(epochs: Count, share: Share | None = None):
...     '''Train.
...
...     Args:
...         epochs: times that every row is read.
...     '''
>>> options_of(train)["epochs"]
Option(name='epochs', expected='a whole number of at least 1', meaning='times that every row is read.')
>>> options_of(train)["share"].expected
'a number in [0, 1] or null'
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import types
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass, field, fields, is_dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AllowInfNan, ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from kd.errors import OptionError

SIZES = Le(2**31 - 1)
"""The limit of sizes and counts: larger ones overflow in the libraries that take them."""
NUMBERS, WIDTHS, DEPTHS = Le(10**6), Le(2**16), Le(999)
"""Limits of weights and rates, of the units of a model, and of its layers. No sensible value comes near.

Each differs from all limits that are named: typing keeps one object for equal annotations, and then a limit that is
named would be left unsaid or not, depending on the order of imports."""
UNSAID = (SIZES, NUMBERS, WIDTHS, DEPTHS)
"""Limits that are named only where a value exceeds them."""

Finite = Annotated[float, AllowInfNan(False)]
NotNegative = Annotated[float, AllowInfNan(False), Ge(0), NUMBERS]
"""A weight, or a rate that may be 0."""
Positive = Annotated[float, AllowInfNan(False), Gt(0), NUMBERS]
Temperature = Annotated[float, AllowInfNan(False), Ge(0.01), Le(1000)]
"""A temperature. A higher one leaves nothing of the logits, a lower one nothing but the largest."""
Spread = Annotated[float, AllowInfNan(False), Ge(1e-6), Le(100)]
"""A standard deviation of random weights. Outside of these bounds they are all alike, or overflow."""
Share = Annotated[float, AllowInfNan(False), Ge(0), Le(1)]
"""A part of a whole, for example of the rows."""
Probability = Annotated[float, AllowInfNan(False), Ge(0), Le(0.95)]
"""The probability of dropping something. Near 1, next to nothing would be left."""
Count = Annotated[int, Ge(1), SIZES]
CountOrNone = Annotated[int, Ge(0), SIZES]
"""A number of things, which may be 0."""
Width = Annotated[int, Ge(1), WIDTHS]
"""A number of units of a model; no machine has memory for more."""
Depth = Annotated[int, Ge(1), DEPTHS]
"""A number of layers."""
DepthOrNone = Annotated[int, Ge(0), DEPTHS]
TextLength = Annotated[int, Ge(3), NUMBERS]
"""A number of tokens, two special tokens included."""
Seed = Annotated[int, Ge(0), Lt(2**32)]

Function = TypeVar("Function", bound=Callable[..., Any])
WORDS: dict[Any, str] = {
    **{bool: "true or false", int: "a whole number", float: "a number", str: "text"},
    **{type(None): "null", dict: "keys with values"},
}


@dataclass(frozen=True)
class Option:
    """The declaration of one option.

    Args:
        name: of the parameter.
        expected: its type and range in words.
        meaning: what it does, from the docstring; empty if the docstring does not say it.
        fits: tells whether the option may have a value.
        most: its limit, if the words for its range leave it out.
    """

    name: str
    expected: str
    meaning: str
    fits: Callable[[Any], bool] = field(repr=False, compare=False)
    most: float | None = field(default=None, repr=False)

    def require(self, value: Any) -> None:
        """Raise an `OptionError` for a value of another type, or outside the range."""
        if not self.fits(value):
            raise OptionError(self.name, self.expected_for(value), value)

    def expected_for(self, value: Any) -> str:
        """Return what is expected in place of a value. A limit of `UNSAID` is named only where the value exceeds it."""
        too_large = self.most is not None and isinstance(value, int | float) and value > self.most
        return f"{self.expected} and at most {self.most}" if too_large else self.expected


def _options_of(function: Callable[..., Any]) -> Mapping[str, Option]:
    """Return the options that a constructor, function or dataclass declares, by name."""
    parameters = inspect.signature(function).parameters.values()
    own = is_dataclass(function) and {each.name for each in parameters} - {each.name for each in fields(function)}
    hints = _fields(function) if is_dataclass(function) else {}
    if own or not hints:  # a function, or a dataclass with a constructor of its own
        hints = _parameters(function) | hints
    meanings = _meanings(function)
    names = [each.name for each in parameters if each.name in hints and each.kind not in VARIABLE]
    return {
        name: Option(name, in_words(hint), meanings.get(name, ""), _test(hint), _most(hint))
        for name, hint in ((name, hints[name]) for name in names)
    }


# with its type, because mypy does not take every class for a Hashable
options_of: Callable[[Callable[..., Any]], Mapping[str, Option]] = functools.cache(_options_of)


def _parameters(function: Callable[..., Any]) -> dict[str, Any]:
    called = function.__init__ if inspect.isclass(function) else function
    try:
        return get_type_hints(called, include_extras=True)
    except (NameError, TypeError):  # annotations of another library that cannot be evaluated here
        return {}


def _fields(kind: Any) -> dict[str, Any]:
    """Return the annotations of a dataclass, each evaluated in the module of the class that wrote it."""
    hints: dict[str, Any] = {}
    for owner in reversed(inspect.getmro(kind)):
        with suppress(NameError, TypeError):  # of another library, as above
            hints |= inspect.get_annotations(owner, eval_str=True)
    return hints


def checked(function: Function) -> Function:
    """Wrap a function so that it refuses arguments that do not fit its declaration."""

    @functools.wraps(function)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        options = options_of(function)
        for name, value in inspect.signature(function).bind(*arguments, **named).arguments.items():
            if name in options:
                options[name].require(value)
        return function(*arguments, **named)

    return wrapper  # type: ignore[return-value]


class Checked:
    """A base of classes whose constructors refuse arguments that do not fit their declaration."""

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = checked(cls.__init__)  # type: ignore[method-assign]


class CheckedFields:
    """A base of dataclasses that refuse values that do not fit the declaration of their fields."""

    def __post_init__(self) -> None:
        for name, option in options_of(type(self)).items():
            if name in self.__dataclass_fields__:  # type: ignore[attr-defined]  # not those of a constructor of its own
                option.require(getattr(self, name))


def in_words(annotation: Any) -> str:
    """Return what an annotation allows, in words.

    >>> in_words(Literal["cls", "mean"]), in_words(int | None), in_words(Annotated[float, Gt(0), Le(1)])
    ('cls or mean', 'a whole number or null', 'a number in (0, 1]')
    """
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return in_words(parts[0]) + _range_in_words(parts[1:])
    if origin is Literal:
        return " or ".join(filter(None, [", ".join(map(written, parts[:-1])), written(parts[-1])]))
    if origin in (Union, types.UnionType):
        # Sorted, because typing takes the order of int | float from whoever wrote this union first.
        words = sorted(set(map(in_words, parts)), key=lambda words: (words == "null", "list" in words, words))
        return " or ".join(words)
    if origin is list or (origin is tuple and Ellipsis in parts):
        return f"a list of {in_words(parts[0])}"
    if origin is tuple:
        return f"a list of {len(parts)}: {', '.join(map(in_words, parts))}"
    name = getattr(annotation, "__name__", "object")
    return WORDS.get(origin or annotation) or f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def written(value: Any) -> str:
    """Return a value as YAML and the command line write it.

    >>> written(None), written(True), written("mean"), written([1, 0.5])
    ('null', 'true', 'mean', '[1, 0.5]')
    """
    return value if isinstance(value, str) else json.dumps(value, default=repr)


def _most(annotation: Any) -> float | None:
    """Return the limit of `UNSAID` in an annotation or in a part of it."""
    parts = get_args(annotation)
    own = [part.le for part in parts if any(part is limit for limit in UNSAID)]
    return next(iter(own), None) or next(filter(None, map(_most, parts)), None)


def _range_in_words(bounds: tuple[Any, ...]) -> str:
    signs = {Ge: ("[", "of at least"), Gt: ("(", "above"), Le: ("]", "of at most"), Lt: (")", "below")}
    said = [bound for bound in bounds if type(bound) in signs and not any(bound is limit for limit in UNSAID)]
    found = [(*signs[type(bound)], *astuple(bound)) for bound in said]
    if len(found) == 2:
        (left, _, least), (right, _, most) = found  # a declaration gives the lower bound first
        return f" in {left}{least}, {most}{right}"
    return "".join(f" {words} {value}" for _, words, value in found)


def _test(annotation: Any) -> Callable[[Any], bool]:
    """Return a test for values of an annotation. It is strict: 1 is a number, but "1", true and null are not."""
    try:
        adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # a type of another library that pydantic cannot check
        return lambda value: True

    def fits(value: Any) -> bool:
        try:
            try:
                adapter.validate_json(json.dumps(value), strict=True)  # as JSON, a list is accepted for a tuple
            except TypeError:  # an object that JSON does not have
                adapter.validate_python(value, strict=True)
        except ValidationError:
            return False
        return True

    return fits


VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
ARGUMENT = re.compile(r"^ {4}(\w[\w, ]*?): (.*)$")


def _meanings(function: Callable[..., Any]) -> dict[str, str]:
    """Read the meaning of each parameter under ``Args`` of the docstring, then in those of the base classes."""
    found: dict[str, str] = {}
    for owner in inspect.getmro(function) if inspect.isclass(function) else [function]:
        text = inspect.cleandoc(owner.__doc__ or "")
        _, _, block = text.partition("Args:\n")
        names: list[str] = []
        for line in block.split("\n"):
            if argument := ARGUMENT.match(line):
                names = [name.strip() for name in argument[1].split(",")]
                found |= {name: argument[2].strip() for name in names if name not in found}
            elif line.startswith(" " * 8) and names:
                found |= {name: f"{found[name]} {line.strip()}" for name in names}
            elif line.strip():
                break
    return found
