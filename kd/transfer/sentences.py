"""Cut documents into sentences, by rules for English and other Latin scripts and for Chinese and Japanese marks."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

BREAK = re.compile(r"<\s*(?:br|p|/p|div|/div|li|/li|h\d|/h\d)\b[^>]*>|\n\s*\n", re.IGNORECASE)
"""Where a paragraph ends, in HTML or in plain text."""
TAG = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")
CLOSERS = "\"'\u201d\u2019)\\]}\u300d\u300f\uff09\u3011"
END = re.compile(
    rf"(?:[\u3002\uff01\uff1f\uff1b]|\u2026\u2026)[{CLOSERS}]*"  # needs no blank after it
    rf"|(?:[.!?\u2026]+)[{CLOSERS}]*(?=\s)"
)
"""Where a sentence may end."""
NO_END = re.compile(
    "mr|mrs|ms|dr|prof|st|sr|jr|vs|etc|cf|al|inc|ltd|co|corp|no|vol|fig|approx|dept|est|gen|gov|rep|sen|lt|col|capt|sgt"
    r"|rev|hon|mt|ave|blvd|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|[^\Wi]|(?:\w\.)+\w"
)
"""Words, without their last full stop, after which it ends no sentence: titles, initials, "e.g"."""
LAST_WORD = re.compile(r"([^\W\d_](?:[\w.']*\w)?)\.$")
OPENERS = "\"'\u201c\u2018([{"


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a document, without HTML tags, line breaks and repeated blanks.

    >>> list(sentences("Mr. Smith (e.g. in the U.S. version) acts well!<br />I liked it... a lot. 很好！我喜欢。"))
    ['Mr. Smith (e.g. in the U.S. version) acts well!', 'I liked it... a lot.', '很好！', '我喜欢。']
    """
    for paragraph in BREAK.split(text):
        clean = " ".join(html.unescape(TAG.sub(" ", paragraph)).split())
        start = 0
        for end in END.finditer(clean):
            if _ends(clean, start, end):
                yield clean[start : end.end()].strip()
                start = end.end()
        if rest := clean[start:].strip():
            yield rest


def _ends(text: str, start: int, end: re.Match[str]) -> bool:
    """Return whether a sentence that begins at ``start`` ends at a mark."""
    marks, after = end[0], text[end.end() :].lstrip()[:2].lstrip(OPENERS)
    if marks[0] in "\u3002\uff01\uff1f\uff1b" or marks.startswith("\u2026\u2026"):
        return True
    stands_alone = end.start() > start and text[end.start() - 1].isspace()
    lower = after[:1].islower()
    if marks[0] in "!?":
        return not (lower and marks[-1] in CLOSERS)  # "why?" he asked
    if marks.startswith(("..", "\u2026")) or lower:
        return (stands_alone and marks == ".") or not lower
    before = LAST_WORD.search(text[start : end.start() + 1])
    if marks != "." or before is None or stands_alone:
        return True
    return not NO_END.fullmatch(before[1].lower())
