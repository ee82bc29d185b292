"""What a source says of what it met: a line for each count above 0, and for what was left over."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from radtag.words import counted


def told(counts: Mapping[str, int], texts: Mapping[str, str]) -> list[str]:
    """A note for each count above 0, in the order of the texts.

    Args:
        counts: what was counted, by name.
        texts: name -> what is said of it, as :func:`radtag.words.counted` takes it.
    """
    return [counted(counts[name], text) for name, text in texts.items() if counts.get(name)]


def left_over(names: Collection[str], text: str) -> list[str]:
    """One note of how many there are and which is the first, if there are any: "2 images are left out, a.png first"."""
    return [f"{counted(len(names), text)}, {min(names)} first"] if names else []
