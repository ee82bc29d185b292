"""The options of a data source, as they are written after its path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from radtag.errors import BadSetting


def choice(source: str, options: Mapping[str, str], option: str, allowed: Sequence[str]) -> str:
    """The option's value; the first of those allowed if it is not given.

    Raises:
        BadSetting: none of those allowed.
    """
    value = options.get(option, allowed[0])
    if value not in allowed:
        raise BadSetting(f"option {option}={value} of source {source}: use {', '.join(allowed[:-1])} or {allowed[-1]}.")
    return value


def folder(source: str, options: Mapping[str, str], option: str, *usual: Path) -> Path:
    """The folder an option names; else the first of the usual ones that is there, or the first.

    Raises:
        BadSetting: it names no folder.
    """
    if option not in options:
        return next((path for path in usual if path.is_dir()), usual[0])
    path = Path(options[option])
    if not path.is_dir():
        raise BadSetting(f"option {option}={path} of source {source} is not a folder. Give one, or leave it out.")
    return path


def folders(source: str, options: Mapping[str, str], option: str, root: Path, *usual: str) -> list[Path]:
    """The folder an option names; else all of the usual ones that are there, or the root, anywhere below which to look.

    Raises:
        BadSetting: it names no folder.
    """
    if option in options:
        return [folder(source, options, option)]
    return [root / name for name in usual if (root / name).is_dir()] or [root]
