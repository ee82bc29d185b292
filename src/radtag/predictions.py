"""A data set through a tagger: each record with its prediction, in order, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from radtag.ahead import read_ahead
from radtag.data.table import Dataset, Record
from radtag.errors import UnreadableImage
from radtag.images import Image, read
from radtag.tag import Prediction, Tag

READERS = 4


class Predictor(Protocol):
    """What an evaluation asks of a tagger; :class:`radtag.tag.Tagger` is one."""

    @property
    def findings(self) -> tuple[str, ...]:
        """Names, in the order of scores and maps."""

    def predict(self, images: Iterable[Image]) -> Iterator[Prediction]:
        """A prediction for each image, in their order."""

    def tags(self, prediction: Prediction, name: str) -> list[Tag]:
        """Its tags, one a finding, in the order of ``findings``."""


def predictions(
    tagger: Predictor,
    dataset: Dataset,
    bad: dict[str, str],
    *,
    only: Sequence[int] | None = None,
    seen: Callable[[Record, Image], None] | None = None,
) -> Iterator[tuple[Record, str, Prediction]]:
    """Records with their patient and prediction, in order.

    Args:
        tagger: what predicts.
        dataset: images.
        bad: takes the images that cannot be read, by name, with the reason; they are left out.
        only: indices of the records wanted, ascending; None = all.
        seen: called with each record and image, ahead of its prediction, in the thread that reads it.
    """
    records, patients = dataset.records, dataset.patients()
    handed: deque[int] = deque()  # images on their way through the network

    def read_one(number: int) -> Iterator[Image]:
        image = read(records[number].path)
        if seen is not None:
            seen(records[number], image)
        yield image

    def images() -> Iterator[Image]:
        chosen = list(range(len(records)) if only is None else only)
        steps = read_ahead(chosen, read_one, threads=READERS, ahead=3 * READERS)
        for step in steps:
            if step.value is not None:
                handed.append(step.item)
                yield step.value
            elif isinstance(step.error, UnreadableImage):
                bad[records[step.item].image] = str(step.error)
            elif step.error is not None:
                raise step.error

    for prediction in tagger.predict(images()):
        number = handed.popleft()
        yield records[number], patients[number], prediction
