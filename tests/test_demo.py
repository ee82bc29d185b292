"""The demonstration, as small as it goes: it runs through, goes on, and says what it found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from radtag.cli import main


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return (int(end.value.code or 0), *capsys.readouterr())


def test_the_demonstration(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RADTAG_CACHE", str(tmp_path / "cache"))
    small = ("--count", "60", "--epochs", "1")
    status, out, _ = call(capsys, "demo", "--out", "shown", *small)
    assert status == 0
    head, *rows = out.splitlines()
    assert head.split() == ["mean", "of", "findings", "CAM", "PYLON", "PYLON", "-", "CAM"]
    assert any(row.startswith("Pointing accuracy ") for row in rows)
    assert any(row.startswith("  cardiomegaly ") for row in rows)
    assert "-> shown/report.html" in rows[-1]
    shown = Path("shown")
    assert "<html" in (shown / "report.html").read_text(encoding="utf-8")
    for method in ("cam", "pylon"):
        assert (shown / "tags" / method / "tags.csv").is_file()
        assert (shown / "evaluation" / method / "report.html").is_file()

    weights = (shown / "runs" / "pylon" / "weights.safetensors").stat().st_mtime_ns
    status, out, _ = call(capsys, "demo", "--out", "shown", *small, "--json")
    assert status == 0
    assert (shown / "runs" / "pylon" / "weights.safetensors").stat().st_mtime_ns == weights, "it trained a second time"
    value = json.loads(out)
    assert value["names"] == ["CAM", "PYLON"]
    assert set(value["differences"][0]["macro"]["pointing"]) == {"value", "low", "high", "n", "undefined"}

    status, out, err = call(capsys, "demo", "--out", "shown", "--count", "60", "--epochs", "2")
    assert (status, out) == (1, "")
    assert "other settings" in err
    assert "--out" in err
