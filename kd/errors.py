"""The one exception that a user's mistake raises."""


class KDError(ValueError):
    """What was expected, what was found, what to do: one clear sentence.

    ``kd`` prints the sentence without a traceback and exits with code 2; ``--debug`` or
    ``KD_DEBUG=1`` shows the traceback.
    """
