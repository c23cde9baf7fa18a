"""What a user's mistake raises, and what ends a run early that a search has given up."""


class KDError(ValueError):
    """What was expected, what was found, what to do: one clear sentence.

    ``kd`` prints the sentence without a traceback and exits with code 2; ``--debug`` or
    ``KD_DEBUG=1`` shows the traceback.
    """


class Pruned(Exception):
    """A run that a search ended because others were ahead of it: neither done nor failed."""
