"""The limits of a server, each declared once; `kd serve` makes its options from them."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from kd.options.declared import Count, NotNegative, Positive


@dataclass(frozen=True)
class Limits:
    """What a server takes and how long it waits.

    Args:
        max_body: bytes of one request; a larger one gets 413.
        max_texts: texts of one request; more get 422.
        max_characters: characters of one text; more get 422.
        max_waiting: texts that wait for the model; a request for which there is no room gets 429.
        max_connections: open connections; more get 503.
        batch_size: texts that the model reads at a time.
        batch_wait: milliseconds for which a text may wait for others that fill its batch.
        read_seconds: time for a client to send a request; after it the connection is closed.
        stop_seconds: time to answer what was taken, after SIGTERM or Ctrl-C.
    """

    max_body: Count = 1 << 20
    max_texts: Count = 256
    max_characters: Count = 10_000
    max_waiting: Count = 1024
    max_connections: Count = 2048
    batch_size: Count = 64
    batch_wait: NotNegative = 2.0
    read_seconds: Positive = 10.0
    stop_seconds: Annotated[int, Ge(1), Le(3600)] = 30
