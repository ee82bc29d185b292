"""The golden values of ../shared/golden: other people's evaluators on one synthetic input set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@dataclass(frozen=True)
class GoldenPair:
    """One (image, finding) pair of the golden set."""

    key: str
    finding: int
    patient: str
    annotated: bool
    evaluable: bool
    kind: str
    map: np.ndarray
    mask: np.ndarray
    instances: np.ndarray
    logits: np.ndarray
    boxes_xywh: np.ndarray

    @property
    def boxes_xyxy(self) -> np.ndarray:
        return self.scaled(self.map.shape)

    def scaled(self, size_rc: tuple[int, int]) -> np.ndarray:
        """The boxes in an image of another size."""
        rows, cols = self.map.shape
        x, y, w, h = self.boxes_xywh.T
        x, w = x * size_rc[1] / cols, w * size_rc[1] / cols
        y, h = y * size_rc[0] / rows, h * size_rc[0] / rows
        return np.stack([x, y, x + w, y + h], axis=1)


class Golden:
    """Inputs and entries of one golden set."""

    def __init__(self, folder: Path) -> None:
        arrays = np.load(folder / "inputs.npz")
        truth = json.loads((folder / "truth.json").read_text())
        self.entries = {e["id"]: e for e in json.loads((folder / "golden.json").read_text())["entries"]}
        self.findings: list[str] = truth["findings"]
        self.images: list[str] = [image["id"] for image in truth["images"]]
        self.patients = {image["id"]: image["patient"] for image in truth["images"]}
        self.labels, self.scores = arrays["labels"], arrays["image_scores"]
        self.pairs: list[GoldenPair] = []
        for pair in truth["pairs"]:
            image, finding = pair["image"], self.findings.index(pair["finding"])
            self.pairs.append(
                GoldenPair(
                    f"{image}/{pair['finding']}",
                    finding,
                    self.patients[image],
                    pair["annotated"],
                    pair["annotated"] or pair["label"] == 0,
                    pair["map_kind"],
                    arrays[f"maps_{image}"][finding],
                    arrays[f"masks_{image}"][finding],
                    arrays[f"instances_{image}"][finding],
                    arrays["lowres_logits"][self.images.index(image), finding],
                    np.array(pair["boxes"], dtype=np.float64).reshape(-1, 4),
                )
            )
        self.annotated = [pair for pair in self.pairs if pair.annotated]

    def values(self, entry: str) -> dict[str, Any]:
        return self.entries[entry]["values"]

    def groups(self, pairs: list[GoldenPair]) -> Iterator[tuple[str, list[GoldenPair]]]:
        """The pairs of each finding, then all of them as "pooled"."""
        for i, name in enumerate(self.findings):
            yield name, [pair for pair in pairs if pair.finding == i]
        yield "pooled", pairs


def number(value: Any) -> float:
    """A golden number; NaN and inf are strings there."""
    return float(value)


@pytest.fixture(scope="session")
def golden(shared: Path) -> Golden:
    return Golden(shared / "golden")
