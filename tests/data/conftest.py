"""What the tests of sources make their small copies of layouts with, and look at labels by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from radtag.data.table import Dataset

Written = Callable[[Path, str], Path]
Labels = Callable[[Dataset, str], list[float | None]]


@pytest.fixture(scope="session")
def written() -> Written:
    """Writes a text file, and the folders it is in."""

    def write(path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


@pytest.fixture(scope="session")
def labels() -> Labels:
    """The labels of one finding, image by image; None = unknown."""

    def of(data: Dataset, finding: str) -> list[float | None]:
        at = data.findings.index(finding)
        return [None if np.isnan(record.labels[at]) else record.labels[at] for record in data.records]

    return of
