"""Which images a run has seen, so that it is never scored on them unawares.

A run keeps eight bytes of the SHA-256 of each image file that it was trained on, and of each by which its weights were
chosen and its thresholds set: no picture and no name. An evaluation looks for the files that it scores among them. What
counts is a file's content: where it lies, what it is called and how it was prepared for the network do not matter, and
two files are the same only if every byte is. The same picture stored anew is another file; ``radtag data check`` finds
such pictures within a data set.

Only files whose size is that of a file the run has seen are read for it, so that new images cost next to nothing.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from radtag.data.cache import content_digests
from radtag.data.table import Dataset
from radtag.errors import BadData, BadRun, BadSetting
from radtag.words import counted

FILE = "seen.npz"
READERS = 4
Digests = NDArray[np.uint64]
Seen = Literal["refuse", "leave-out", "count"]
"""What becomes of images that are to be scored and that a run has seen."""


@dataclass(frozen=True)
class SeenImages:
    """The images that a run has seen.

    Args:
        trained_on: (n,) first eight bytes of the SHA-256 of their files, ascending.
        chosen_on: (n,) the same of those by which weights were chosen and thresholds set.
        sizes: (n,) sizes in bytes that these files have, each once.
    """

    trained_on: Digests
    chosen_on: Digests
    sizes: NDArray[np.int64]

    @classmethod
    def of(cls, trained_on: Sequence[Path], chosen_on: Sequence[Path], before: SeenImages | None = None) -> SeenImages:
        """What a training on these files sees.

        Args:
            trained_on: image files; those that are gone are left out.
            chosen_on: image files that choose weights and thresholds.
            before: what the run had seen whose weights it begins with.
        """
        paths = [*trained_on, *chosen_on]
        digests = content_digests(paths)
        found = [None if text.startswith("unreadable") else int(text[:16], 16) for text in digests]
        trained = {one for one in found[: len(trained_on)] if one is not None}
        chosen = {one for one in found[len(trained_on) :] if one is not None}
        sizes = {path.stat().st_size for path, one in zip(paths, found, strict=True) if one is not None}
        if before is not None:
            trained.update(before.trained_on.tolist())
            chosen.update(before.chosen_on.tolist())
            sizes.update(before.sizes.tolist())
        return cls(
            np.array(sorted(trained), dtype=np.uint64),
            np.array(sorted(chosen), dtype=np.uint64),
            np.array(sorted(sizes), dtype=np.int64),
        )

    @classmethod
    def read(cls, run: Path) -> SeenImages | None:
        """What a run has seen; None where its folder does not say, as those of earlier versions.

        Raises:
            BadRun: the file is damaged.
        """
        file = run / FILE
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return cls(
                    arrays["trained_on"].astype(np.uint64),
                    arrays["chosen_on"].astype(np.uint64),
                    arrays["sizes"].astype(np.int64),
                )
        except FileNotFoundError:
            return None
        except (OSError, EOFError, ValueError, TypeError, LookupError, zipfile.BadZipFile) as error:
            raise BadRun(
                f"{file} is damaged ({type(error).__name__}). Restore it; or remove it, and nothing tells any more"
                " which images the run has seen."
            ) from error

    def write(self, run: Path) -> None:
        """Into a run's folder, whole or not at all."""
        temporary = run / f"{FILE}.tmp"  # one name, so that what a kill leaves is written over
        with open(temporary, "wb") as stream:
            np.savez(stream, trained_on=self.trained_on, chosen_on=self.chosen_on, sizes=self.sizes)
        os.replace(temporary, run / FILE)


def screened(dataset: Dataset, runs: Iterable[Path], rule: Seen) -> tuple[Dataset, dict[str, Any]]:
    """The images of a data set that runs may be scored on.

    Args:
        dataset: images to be scored.
        runs: folders of the runs that are scored together.
        rule: what becomes of images that one of them has seen.

    Returns:
        The data set, and what to say of it: the rule, how many images there were, how many of them a run was trained
        on, or, but for these, had its thresholds set on, and how many runs do not say what they have seen; nothing
        where none does.

    Raises:
        BadData: a run has seen some of the images, and the rule is to refuse that; or has seen all, where they are to
            be left out.
        BadSetting: no such rule.
    """
    if rule not in get_args(Seen):
        raise BadSetting(
            f"images that a run has seen are refused, left out or counted, not {rule!r}: give one of "
            f"{', '.join(get_args(Seen))}."
        )
    every = list(runs)
    known = {run: own for run in every if (own := SeenImages.read(Path(run))) is not None}
    if not known:
        return dataset, {}
    trained_on, chosen_on = _found(dataset, known.values())
    chosen_on &= ~trained_on
    about = {
        "rule": rule,
        "images": len(dataset),
        "trained_on": int(trained_on.sum()),
        "thresholds_set_on": int(chosen_on.sum()),
        "silent_runs": len(every) - len(known),
    }
    seen = trained_on | chosen_on
    if not seen.any() or rule == "count":
        return dataset, about
    names = [[one.image for one, at in zip(dataset.records, of, strict=True) if at] for of in (trained_on, chosen_on)]
    if rule == "refuse":
        who = str(next(iter(known))) if len(known) == 1 else "a run of the ensemble"
        told = [
            f"{what} {len(those)} ({those[0]}{', for one' if len(those) > 1 else ''})"
            for what, those in zip(("was trained on", "had its thresholds set on"), names, strict=True)
            if those
        ]
        raise BadData(
            f"of the {counted(len(dataset), 'image[s]')} of {dataset.name}, {who} {' and '.join(told)}: numbers on them"
            " do not say how right it is on others. Score the test split of the data and splits that it was trained"
            " with; or leave these images out with --seen leave-out, or count them with --seen count, and the report"
            " says so."
        )
    kept = tuple(record for record, one in zip(dataset.records, seen, strict=True) if not one)
    if not kept:
        raise BadData(
            f"{dataset.name}: the run was trained, or had its thresholds set, on all of its"
            f" {counted(len(dataset), 'image[s]')}, and none is left to score. Score another split, or other data."
        )
    return replace(dataset, records=kept), about


def sentences(about: Mapping[str, Any]) -> list[str]:
    """What :func:`screened` found, for a report: nothing where no image was seen."""
    trained_on, chosen_on = about.get("trained_on", 0), about.get("thresholds_set_on", 0)
    if not trained_on + chosen_on:
        return []
    told = [
        f"{what} {count:,}"
        for what, count in (("was trained on", trained_on), ("had its thresholds set on", chosen_on))
        if count
    ]
    which = f"Of {counted(about['images'], 'image[s]', ',')} the run {' and '.join(told)}"
    if about["rule"] == "leave-out":
        return [f"{which}: these are left out."]
    return [f"{which}: these are counted, and the numbers do not say how right it is on images it has not seen."]


def pooled(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What :func:`screened` found for each of several folds, as one; nothing where none of them says.

    Where one fold counts what was seen and another leaves it out, the images that are left out are none of the whole. A
    fold that does not say is a run that does not.
    """
    known = [part for part in parts if part]
    if not known:
        return {}
    rule = next(one for one in ("count", "leave-out", "refuse") if any(part["rule"] == one for part in known))
    whole: dict[str, Any] = dict.fromkeys(("rule", "images", "trained_on", "thresholds_set_on", "silent_runs"), 0)
    whole |= {"rule": rule, "silent_runs": len(parts) - len(known)}
    for part in known:
        trained_on, chosen_on = part["trained_on"], part["thresholds_set_on"]
        gone = rule == "count" and part["rule"] == "leave-out"
        whole["images"] += part["images"] - (trained_on + chosen_on if gone else 0)
        whole["trained_on"] += 0 if gone else trained_on
        whole["thresholds_set_on"] += 0 if gone else chosen_on
        whole["silent_runs"] += part.get("silent_runs", 0)
    return whole


def _found(dataset: Dataset, known: Iterable[SeenImages]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(image,) whether any of the runs was trained on it, and whether any chose by it."""
    runs = list(known)
    sizes = frozenset(size for run in runs for size in run.sizes.tolist())

    def digest(path: Path) -> int | None:
        try:
            if path.stat().st_size not in sizes:
                return None
            with path.open("rb") as stream:
                return int(hashlib.file_digest(stream, "sha256").hexdigest()[:16], 16)
        except OSError:
            return None  # which is said when it is to be scored

    with ThreadPoolExecutor(READERS) as pool:
        digests = list(pool.map(digest, [record.path for record in dataset.records]))
    readable = np.array([one is not None for one in digests])
    values = np.array([one or 0 for one in digests], dtype=np.uint64)
    trained_on, chosen_on = (
        np.isin(values, np.concatenate([getattr(run, of) for run in runs])) & readable
        for of in ("trained_on", "chosen_on")
    )
    return trained_on, chosen_on
