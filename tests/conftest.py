"""What every test may use: the shared reference data, where a machine has it, and shapes checked at run time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Two test processes on two cores: more threads than that only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Plain messages, whatever terminal the tests run in: they are compared to the letter.
os.environ.update({"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "120"})
os.environ.pop("FORCE_COLOR", None)
os.environ.pop("RADTAG_DEBUG", None)

# Shapes in signatures, `Float[Tensor, "batch finding row col"]`, are checked under pytest only.
install_import_hook("radtag.models", "beartype.beartype")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the repository: golden values and small public data that are not ours to commit."""
    path = ROOT.parent / "shared"
    if not path.is_dir():
        pytest.skip("no folder ../shared beside the repository: golden values and public data are not on this machine")
    return path


@pytest.fixture(scope="session")
def shared_data(shared: Path) -> Path:
    """The small public data sets in `../shared/data`."""
    path = shared / "data"
    if not path.is_dir():
        pytest.skip("no folder ../shared/data beside the repository: small public data sets are not here")
    return path
