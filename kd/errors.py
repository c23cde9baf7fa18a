"""Exceptions for a user's mistakes and for pruned runs."""


class KDError(ValueError):
    """A user's mistake, in one sentence: what was expected, what was found, what to do.

    ``kd`` prints the sentence and exits with code 2; ``--debug`` or ``KD_DEBUG=1`` shows the traceback.
    """


class OptionError(KDError):
    """An option whose value has the wrong type or is outside its range.

    Args:
        name: the option's name.
        expected: its type and range in words.
        found: its value.
    """

    def __init__(self, name: str, expected: str, found: object) -> None:
        super().__init__(f"{name} must be {expected}, found {found!r}; correct {name} in the configuration")
        self.parts = name, expected, found

    def at(self, place: str) -> "OptionError":
        """Return the same error with the option's place in the configuration, such as ``student``."""
        name, expected, found = self.parts
        return OptionError(f"{place}.{name}" if place else name, expected, found)


class TrainingFailed(KDError):
    """A training that diverged or changed nothing: the same recipe would fail again."""


class NewerError(KDError):
    """A file was written by a newer kd."""


class Pruned(Exception):
    """A run that a search stopped because other trials were better; it is neither done nor failed."""
