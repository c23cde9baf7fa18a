"""Read the declaration of an option from the signature that takes it, and hold values against it. Needs no torch.

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
from dataclasses import dataclass, field, is_dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AllowInfNan, ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from kd.errors import OptionError

Finite = Annotated[float, AllowInfNan(False)]
NotNegative = Annotated[float, AllowInfNan(False), Ge(0)]
Positive = Annotated[float, AllowInfNan(False), Gt(0)]
Share = Annotated[float, AllowInfNan(False), Ge(0), Le(1)]
"""A part of a whole."""
Probability = Annotated[float, AllowInfNan(False), Ge(0), Lt(1)]
"""Of dropping something: at 1 nothing would be left."""
Count = Annotated[int, Ge(1)]
CountOrNone = Annotated[int, Ge(0)]
"""A number of things, of which there may be none."""
Seed = Annotated[int, Ge(0), Lt(2**32)]

Function = TypeVar("Function", bound=Callable[..., Any])
WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}


@dataclass(frozen=True)
class Option:
    """One option, as it was declared.

    Args:
        name: of the parameter.
        expected: its type and range in words.
        meaning: what it does, from the docstring; empty where that says nothing.
        fits: whether a value may be given to it.
    """

    name: str
    expected: str
    meaning: str
    fits: Callable[[Any], bool] = field(repr=False, compare=False)

    def require(self, value: Any) -> None:
        """Refuse a value of another type, or outside the range.

        Raises:
            OptionError: naming the option, what it expects and what was found.
        """
        if not self.fits(value):
            raise OptionError(self.name, self.expected, value)


def options_of(function: Callable[..., Any]) -> Mapping[str, Option]:
    """The options that a constructor, function or dataclass declares, by name."""
    return _options_of(function)


@functools.cache
def _options_of(function: Callable[..., Any]) -> Mapping[str, Option]:
    called: Any = function
    if inspect.isclass(function) and not is_dataclass(function):  # whose fields may stand in several modules
        called = function.__init__  # type: ignore[misc]
    try:
        hints = get_type_hints(called, include_extras=True)
    except (NameError, TypeError):  # of another library, whose annotations cannot be read
        return {}
    meanings = _meanings(function)
    names = [name for name in inspect.signature(function).parameters if name in hints]
    return {name: Option(name, in_words(hints[name]), meanings.get(name, ""), _test(hints[name])) for name in names}


def checked(function: Function) -> Function:
    """Wrap a function so that it refuses arguments outside what it declares."""

    @functools.wraps(function)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        options = options_of(function)
        for name, value in inspect.signature(function).bind(*arguments, **named).arguments.items():
            if name in options:
                options[name].require(value)
        return function(*arguments, **named)

    return wrapper  # type: ignore[return-value]


class Checked:
    """A base of classes whose constructors refuse arguments outside what they declare."""

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = checked(cls.__init__)  # type: ignore[method-assign]


class CheckedFields:
    """A base of dataclasses that refuse values outside what their fields declare."""

    def __post_init__(self) -> None:
        for name, option in options_of(type(self)).items():
            option.require(getattr(self, name))


def in_words(annotation: Any) -> str:
    """What an annotation allows.

    >>> in_words(Literal["cls", "mean"]), in_words(int | None), in_words(Annotated[float, Gt(0), Le(1)])
    ('cls or mean', 'a whole number or null', 'a number in (0, 1]')
    """
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return in_words(parts[0]) + _range_in_words(parts[1:])
    if origin is Literal:
        return " or ".join(filter(None, [", ".join(map(str, parts[:-1])), str(parts[-1])]))
    if origin in (Union, types.UnionType):
        return " or ".join(in_words(part) for part in parts)
    if origin in (list, tuple) and parts:
        return f"a list: {', '.join('...' if part is Ellipsis else in_words(part) for part in parts)}"
    return WORDS.get(annotation) or f"a {getattr(annotation, '__name__', 'value')}"


def _range_in_words(bounds: tuple[Any, ...]) -> str:
    low = next((bound for bound in bounds if isinstance(bound, Ge | Gt)), None)
    high = next((bound for bound in bounds if isinstance(bound, Le | Lt)), None)
    least = None if low is None else low.ge if isinstance(low, Ge) else low.gt
    most = None if high is None else high.le if isinstance(high, Le) else high.lt
    if low is not None and high is not None:
        return f" in {'[' if isinstance(low, Ge) else '('}{least}, {most}{']' if isinstance(high, Le) else ')'}"
    if low is not None:
        return f" of at least {least}" if isinstance(low, Ge) else f" above {least}"
    if high is not None:
        return f" of at most {most}" if isinstance(high, Le) else f" below {most}"
    return ""


def _test(annotation: Any) -> Callable[[Any], bool]:
    """Return a test for values of an annotation, as strict as YAML: 1 is a number, "1", true and null are not."""
    try:
        adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:
        adapter = TypeAdapter(annotation)

    def fits(value: Any) -> bool:
        try:
            try:
                adapter.validate_json(json.dumps(value), strict=True)  # in which a list may be a tuple
            except TypeError:  # an object, which YAML cannot hold
                adapter.validate_python(value, strict=True)
        except ValidationError:
            return False
        return True

    return fits


ARGUMENT = re.compile(r"^ {4}(\w[\w, ]*?): (.*)$")


def _meanings(function: Callable[..., Any]) -> dict[str, str]:
    """What the docstring says of each parameter, under ``Args``; of its own class first, then of those it extends."""
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
