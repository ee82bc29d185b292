"""Words for numbers and settings, as messages need them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


def counted(count: int, text: str, spec: str = "") -> str:
    """A count and what it counts: ``counted(1, "image[s] [is|are] left out")`` is "1 image is left out".

    Args:
        count: how many.
        text: in brackets "one|several", or what several add.
        spec: how the number is written, as in ``format``.
    """
    return f"{count:{spec}} {inflected(count, text)}"


def inflected(count: int, text: str) -> str:
    """The words of :func:`counted`, without the count."""
    return re.sub(r"\[(?:([^|\]]*)\|)?([^\]]*)\]", lambda m: (m[1] or "") if count == 1 else m[2], text)


def own_words(message: str) -> str:
    """What one of our validators said, without what pydantic puts before it."""
    return message.removeprefix("Value error, ")


def changes(was: Mapping[str, Any], now: Mapping[str, Any], most: int = 5) -> str:
    """What differs between nested values, by name: "epochs was 4, now 5; augment.flip_p was 0.5, now 0"; "" if nothing.

    Args:
        was: before.
        now: after, of the same plain types (as both come from JSON).
        most: at most so many are named, the others counted.
    """
    before, after = _flat(was), _flat(now)
    names = [name for name in dict.fromkeys((*after, *before)) if before.get(name) != after.get(name)]
    told = [f"{name} was {_told(before.get(name))}, now {_told(after.get(name))}" for name in names[:most]]
    return "; ".join([*told, *([f"and {len(names) - most} more"] if len(names) > most else [])])


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _told(value: Any) -> str:
    if value is None:
        return "not given"
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text or "empty"
