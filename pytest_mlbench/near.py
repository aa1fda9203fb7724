"""Word the message for a name that is not known: what was found, the nearest known name, the known names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_SHOWN = 20


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word most like `word`, upper and lower case being the same, or None."""
    by_lower = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return by_lower[found[0]] if found else None


def unknown(what: str, word: str, known: Iterable[str], plural: str = "") -> str:
    """Return `unknown framework "onnxrutime"; did you mean "onnxruntime"? Known frameworks: ...`.

    `plural` is written before the list of known words; without it, `what` with an s.
    """
    words = list(known)
    match = nearest(word, words)
    hint = f'; did you mean "{match}"?' if match is not None else "."
    listed = ", ".join(words[:_SHOWN]) + (", ..." if len(words) > _SHOWN else "")
    return f'unknown {what} "{word}"{hint} Known {plural or what + "s"}: {listed or "none"}'
