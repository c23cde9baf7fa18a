"""What a user's mistake raises, and what ends a run early that a search has given up."""


class KDError(ValueError):
    """What was expected, what was found, what to do: one clear sentence.

    ``kd`` prints the sentence without a traceback and exits with code 2; ``--debug`` or
    ``KD_DEBUG=1`` shows the traceback.
    """


class OptionError(KDError):
    """An option of a constructor that is outside its range; whoever knows where it stands says so with `at`.

    Args:
        name: of the option.
        expected: in words.
        found: its value.
    """

    def __init__(self, name: str, expected: str, found: object):
        super().__init__(f"{name} must be {expected}, found {found!r}; correct {name} in the configuration")
        self.parts = name, expected, found

    def at(self, place: str) -> "OptionError":
        """The same with the place of the constructor in the configuration."""
        name, expected, found = self.parts
        return OptionError(f"{place}.{name}" if place else name, expected, found)


class Pruned(Exception):
    """A run that a search ended because others were ahead of it: neither done nor failed."""
