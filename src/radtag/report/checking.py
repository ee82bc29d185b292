"""The sheet for spot checks of proposed masks: one HTML file that opens offline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import radtag
from radtag.report.page import Picture, environment, replace_text


@dataclass(frozen=True)
class Doubtful:
    """One proposal on the sheet.

    Args:
        image: name of the image.
        finding: which.
        split: of the image.
        doubt: 0-1.
        why: reasons, the strongest first.
        facts: its numbers, in words.
        picture: the image as it came and, beside it, with map and outline.
        masked: whether there is a mask.
    """

    image: str
    finding: str
    split: str
    doubt: float
    why: tuple[str, ...]
    facts: tuple[str, ...]
    picture: Picture
    masked: bool


def write_checks(path: Path, source: str, mark: str, shown: Sequence[Doubtful], *, of: int, images: int) -> None:
    """Writes the page.

    Args:
        path: the HTML file; replaced as a whole.
        source: name of the data set.
        mark: by which run the masks were proposed.
        shown: the proposals, the most doubtful first.
        of: how many proposals there are in all.
        images: how many images.
    """
    context = {
        "title": f"Masks proposed for {source}",
        "version": radtag.__version__,
        "mark": mark,
        "shown": shown,
        "of": of,
        "images": images,
        "findings": list(dict.fromkeys(one.finding for one in shown)),
    }
    replace_text(path, environment().get_template("checking.html.j2").render(context))
