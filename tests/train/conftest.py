"""A data set that can be learned in seconds: noise, with a bright square where the finding is."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType

import numpy as np
import PIL.Image
import pytest

from radtag.data.table import Dataset, Record
from radtag.train import loop


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """32 training and 12 validation images of 64 x 72 pixels; "left" and "right" squares, some labels unknown."""
    folder = tmp_path_factory.mktemp("squares")
    random = np.random.default_rng(0)
    records = []
    for i in range(44):
        left, right = bool(random.integers(2)), bool(random.integers(2))
        pixels = random.integers(60, 100, (64, 72))
        for present, col in ((left, 8), (right, 48)):
            if present:
                row = int(random.integers(8, 40))
                pixels[row : row + 16, col : col + 16] += 120
        file = folder / f"{i:02}.png"
        PIL.Image.fromarray(pixels.astype(np.uint8)).save(file)
        labels = (float(left), math.nan if i % 7 == 3 else float(right))
        records.append(Record(file.name, file, labels, split="train" if i < 32 else "val"))
    return Dataset("squares", ("left", "right"), tuple(records))


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    """Pixels of these tests are kept in a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADTAG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AbstractContextManager[None]]:
    """Within ``stopped(times, module)`` a training is interrupted once it has so often written where to go on from."""

    @contextmanager
    def within(times: int = 1, module: ModuleType = loop):
        write, written = module.write_resume, []

        def interrupt(file, state):
            write(file, state)
            written.append(file)
            if len(written) == times:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(module, "write_resume", interrupt)
            with pytest.raises(KeyboardInterrupt):
                yield

    return within
