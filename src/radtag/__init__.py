"""radtag finds where the disease is, from labels that only say that it is there.

    import radtag

    tagger = radtag.load("runs/chest")
    for tag in tagger.tag(["image.png"]):
        print(tag.finding, tag.score, tag.boxes)

Importing this package imports nothing heavy: :func:`load` and :func:`read` bring what they need when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from radtag.images import read as read
    from radtag.tag import load as load

__version__ = "0.1.0"
__all__ = ["__version__", "load", "read"]

_HOMES = {"load": "radtag.tag", "read": "radtag.images"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'radtag' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
