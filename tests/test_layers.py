"""Imports flow down only, and what is usable on anybody's maps needs no torch: the contracts in pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def test_the_contracts_are_kept(root: Path):
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", script, "--no-cache"],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kept, 0 broken" in done.stdout


@pytest.mark.parametrize("module", ["anatomy", "geometry", "images", "metrics", "regions", "calibration", "draw"])
def test_torch_is_not_loaded(module: str):
    script = f"import sys, radtag.{module}; assert not {{'torch', 'timm', 'accelerate'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_importing_radtag_imports_nothing_else():
    script = "import sys, radtag; assert not {'torch', 'numpy', 'typer', 'rich'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
