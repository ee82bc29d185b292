"""Lesions painted into a chest image, with masks exact to the pixel: what phantoms and planted sets share.

Conventions
-----------
- An image is (row, col) float32, 0-1, bright = dense. A painter is ``(rng, image, anatomy) -> (new image, mask)``.
- **Mask = changed pixels.** Inside the mask every pixel changes by at least :data:`SMALLEST_CHANGE` (three levels of
  an 8-bit image), so that the edge of the mask is the edge of what was painted and survives rounding to 8 bits; outside
  it not one value changes. The only pixels that leave the mask are those that could not change, being black or white.
- **Contrast is relative.** ``anatomy.span`` is the step in brightness from lung to soft tissue in this very image;
  every amplitude is a share of it. Sizes are shares of ``anatomy.width_px``, the width of both lungs together.

Kinds, with the ranges values are drawn from (evenly), where lesions look **plain**:

- nodule: one to three round shadows anywhere in the lungs; radius 0.040-0.075 widths, peak +0.60-1.00 spans.
- consolidation: a mottled patch, cut off by the edge of its lung, in one lung or (1 in 4) each; half-axes
  0.12-0.26 widths, peak +0.60-1.00 spans, thinner towards the sides of the lung.
- mass: one large round or lobed shadow; radius 0.080-0.150 widths, peak +0.60-1.00 spans.
- atelectasis: one to three thin tilted plates in the lower two thirds of a lung; 0.20-0.50 widths long,
  0.012-0.040 thick, +0.35-0.75 spans.
- effusion: fluid at the bottom of a lung, or (1 in 4) both, rising along the wall; 0.14-0.45 lung heights deep,
  60-95 % of the way to the brightness of soft tissue where it is deepest.
- pneumothorax: air between the wall and a lung that shrank to 0.62-0.84; -0.18 to -0.42 spans, and a line of +0.22 on
  the surface of the lung.
- cardiomegaly: the image's own heart, widened by 1.35-1.65 about its middle within an ellipse of 0.64-0.80 widths and
  0.56-0.72 lung heights, at whose rim the lung is pressed together; +0.02-0.12 spans. The mask is that ellipse: the
  heart and a narrow rim of lung.

Where they look **subtle** (:data:`LOOKS`), sizes are those that radiologists give the names to (both lungs together are
some 280 mm wide; a nodule has at most 30 mm, a mass more: Hansell et al. 2008, Fleischner Society), and densities begin
where a lesion can just be seen:

- nodule: radius 0.014-0.054 widths, peak +0.20-0.90 spans. mass: 0.054-0.150, +0.25-1.00.
- consolidation: half-axes 0.08-0.30 widths, peak +0.15-0.90 spans.
- atelectasis: plates 0.003-0.012 widths thick, +0.10-0.50 spans; or (1 in 2) the bottom of a lung, less aerated: a
  cloudy wedge 0.10-0.30 lung heights deep, +0.15-0.70 spans.
- effusion: 0.06-0.45 lung heights deep. pneumothorax: the lung shrank to 0.70-0.90; -0.08 to -0.35 spans, line +0.12.
- cardiomegaly: as plain.

Numpy and scipy only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from radtag.anatomy import split_lungs
from radtag.geometry import XYXY

FloatImage = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
Range = tuple[float, float]
Look = Literal["plain", "subtle"]

SMALLEST_CHANGE = 3 / 255
"""Least change of a pixel within a lesion's mask, on the 0-1 scale."""


@dataclass(frozen=True)
class Anatomy:
    """What a painter must know of an image.

    Args:
        lungs: one (row, col) mask per lung, one or two, from left to right in the image.
        tissue: brightness of soft tissue (between the lungs), 0-1.
        span: brightness of soft tissue minus that of lung, positive.
        width_px: columns from the outermost edge of one lung to that of the other.
        middle_col: column between the lungs (of the spine), which tells a lung's medial from its lateral side.
        markings: (row, col) what the lung's vessels add to the image, where that is known; a pneumothorax removes them.
    """

    lungs: tuple[Mask, ...]
    tissue: float
    span: float
    width_px: float
    middle_col: float
    markings: FloatImage | None = None

    @classmethod
    def of(cls, image: FloatImage, lung_mask: Mask, markings: FloatImage | None = None) -> Anatomy | None:
        """Reads the anatomy off an image and the mask of its lungs; None where that mask cannot be a pair of lungs.

        Args:
            image: (row, col), 0-1.
            lung_mask: (row, col); both lungs.
            markings: see the class.
        """
        lungs = split_lungs(lung_mask)
        if not lungs:
            return None
        cols = np.flatnonzero(lung_mask.any(axis=0))
        rows = np.flatnonzero(lung_mask.any(axis=1))
        if len(lungs) == 2:
            inner = [np.flatnonzero(lung.any(axis=0)) for lung in lungs]
            middle = (np.mean(inner[0]) + np.mean(inner[1])) / 2
        else:  # a lone lung: the spine is on the side where the image goes on
            middle = image.shape[1] / 2
        box = (slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1))
        around = image[box][~lung_mask[box]]
        lung_level = float(np.median(image[lung_mask]))
        tissue = float(np.quantile(around, 0.6)) if around.size else lung_level
        # A washed-out image still gets lesions that 8 bits can hold.
        span = max(tissue - lung_level, 0.12)
        return cls(lungs, max(tissue, lung_level + span), span, float(cols[-1] + 1 - cols[0]), float(middle), markings)


Painter = Callable[[np.random.Generator, FloatImage, Anatomy], tuple[FloatImage, Mask]]


def boxes_of(mask: Mask) -> tuple[XYXY, ...]:
    """Tight boxes, one for each 8-connected part of a mask: half-open xyxy, row-major order of the parts."""
    parts, _ = ndimage.label(mask, structure=np.ones((3, 3), dtype=int))
    return tuple(
        (float(cols.start), float(rows.start), float(cols.stop), float(rows.stop))
        for rows, cols in ndimage.find_objects(parts)
    )


def paint(
    rng: np.random.Generator, image: FloatImage, anatomy: Anatomy, kinds: Iterable[str], *, look: Look = "plain"
) -> tuple[FloatImage, dict[str, Mask]]:
    """Paints several kinds, one over the other; a kind for which there was no room is missing from the masks."""
    masks: dict[str, Mask] = {}
    for kind in kinds:
        image, mask = LOOKS[look][kind](rng, image, anatomy)
        if mask.any():
            masks[kind] = mask
    return image, masks


def nodule(
    rng: np.random.Generator,
    image: FloatImage,
    anatomy: Anatomy,
    *,
    radius_widths: Range = (0.040, 0.075),
    peak_spans: Range = (0.60, 1.00),
) -> tuple[FloatImage, Mask]:
    """One to three round shadows with slightly uneven edges, nearly wholly within a lung."""
    count = int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15]))
    return _round_shadows(rng, image, anatomy, count, radius_widths=radius_widths, peak_spans=peak_spans, uneven=0.12)


def mass(
    rng: np.random.Generator,
    image: FloatImage,
    anatomy: Anatomy,
    *,
    radius_widths: Range = (0.080, 0.150),
    peak_spans: Range = (0.60, 1.00),
) -> tuple[FloatImage, Mask]:
    """One large shadow, round or lobed."""
    return _round_shadows(rng, image, anatomy, 1, radius_widths=radius_widths, peak_spans=peak_spans, uneven=0.30)


def _round_shadows(
    rng: np.random.Generator,
    image: FloatImage,
    anatomy: Anatomy,
    count: int,
    *,
    radius_widths: Range,
    peak_spans: Range,
    uneven: float,
) -> tuple[FloatImage, Mask]:
    """``count`` shadows whose edge is off a circle by up to ``uneven`` radii."""
    mask = np.zeros(image.shape, dtype=bool)
    change = np.zeros(image.shape, dtype=np.float32)
    for _ in range(count):
        radius = max(rng.uniform(*radius_widths) * anatomy.width_px, 2.0)
        centre = _place(rng, anatomy, 0.85 * radius, mask)
        if centre is None:
            continue
        box = _around(centre, (1.1 + 2.1 * uneven) * radius, image.shape)
        across, down = _offsets(box, centre, radius)
        angle = np.arctan2(down, across)
        edge = 1 + sum(rng.uniform(-uneven, uneven) / k * np.cos(k * angle + rng.uniform(0, 6.28)) for k in (2, 3, 5))
        inside = 1 - (across**2 + down**2) / edge**2  # 1 in the centre, 0 at the edge
        profile = np.clip(inside, 0, 1) ** 0.85
        peak = rng.uniform(*peak_spans) * anatomy.span
        mask[box] |= inside > 0
        np.maximum(change[box], _from_edge(profile, peak, 0.12), out=change[box], where=inside > 0)
    return _apply(image, change, mask)


def consolidation(
    rng: np.random.Generator,
    image: FloatImage,
    anatomy: Anatomy,
    *,
    half_axis_widths: Range = (0.12, 0.26),
    peak_spans: Range = (0.60, 1.00),
) -> tuple[FloatImage, Mask]:
    """A mottled patch with a ragged edge, cut off by the edge of its lung; sometimes one in each lung."""
    mask = np.zeros(image.shape, dtype=bool)
    change = np.zeros(image.shape, dtype=np.float32)
    sides = rng.permutation(len(anatomy.lungs))[: 2 if rng.random() < 0.25 else 1]
    for side in sides:
        lung = anatomy.lungs[side]
        rows, cols = np.nonzero(lung)
        at = int(rng.integers(len(rows)))
        centre = (float(rows[at]), float(cols[at]))
        axes = rng.uniform(*half_axis_widths, size=2) * anatomy.width_px
        box = _around(centre, 1.6 * float(axes.max()), image.shape)
        across, down = _offsets(box, centre, 1.0)
        turn = rng.uniform(0, np.pi)
        along = (across * np.cos(turn) + down * np.sin(turn)) / axes[0]
        beside = (down * np.cos(turn) - across * np.sin(turn)) / axes[1]
        ragged = clouds(rng, along.shape, 0.10 * anatomy.width_px)
        field = 1 - along**2 - beside**2 + 0.45 * ragged
        here = _part_at((field > 0) & lung[box], centre, box)
        mottle = 0.72 + 0.28 * clouds(rng, along.shape, 0.035 * anatomy.width_px)
        profile = np.clip(np.sqrt(np.clip(field, 0, 1)) * mottle, 0, 1) * _thinning(lung, anatomy)[box]
        peak = rng.uniform(*peak_spans) * anatomy.span
        mask[box] |= here
        np.maximum(change[box], _from_edge(profile, peak, 0.2), out=change[box], where=here)
    return _apply(image, change, mask)


def effusion(
    rng: np.random.Generator, image: FloatImage, anatomy: Anatomy, *, depth_heights: Range = (0.14, 0.45)
) -> tuple[FloatImage, Mask]:
    """Fluid at the bottom of a lung: dense below, fading towards a level that rises along the outer wall."""
    mask = np.zeros(image.shape, dtype=bool)
    change = np.zeros(image.shape, dtype=np.float32)
    sides = rng.permutation(len(anatomy.lungs))[: 2 if rng.random() < 0.25 else 1]
    row = np.arange(image.shape[0], dtype=np.float32)[:, None]
    col = np.arange(image.shape[1], dtype=np.float32)
    for side in sides:
        lung = anatomy.lungs[side]
        rows, cols = np.flatnonzero(lung.any(axis=1)), np.flatnonzero(lung.any(axis=0))
        top, bottom, first, last = rows[0], rows[-1] + 1, cols[0], cols[-1] + 1
        outwards = (first + last) / 2 > anatomy.middle_col
        lateral = np.clip((col - first) / (last - first), 0, 1)  # 0 medial, 1 lateral
        lateral = lateral if outwards else 1 - lateral
        depth = rng.uniform(*depth_heights) * (bottom - top)
        rise = rng.uniform(0.25, 0.6) * depth
        level = bottom - depth - rise * lateral ** rng.uniform(2.0, 4.0) + 0.25 * rise
        level = level + rng.uniform(0, 0.015) * (bottom - top) * np.sin(col / anatomy.width_px * 20 + rng.uniform(0, 6))
        below = row - level.astype(np.float32)
        here = (below > 0) & lung
        profile = np.clip(below / (rng.uniform(0.35, 0.7) * depth), 0, 1)
        strength = rng.uniform(0.60, 0.95) * (0.35 + 0.65 * profile) * (0.25 + 0.75 * _thinning(lung, anatomy))
        towards_tissue = np.maximum(strength * (anatomy.tissue + 0.1 * anatomy.span - image), SMALLEST_CHANGE)
        mask |= here
        np.maximum(change, towards_tissue, out=change, where=here)
    return _apply(image, change, mask)


def pneumothorax(
    rng: np.random.Generator,
    image: FloatImage,
    anatomy: Anatomy,
    *,
    shrunk_to: Range = (0.62, 0.84),
    darker_spans: Range = (0.18, 0.42),
    line_spans: float = 0.22,
) -> tuple[FloatImage, Mask]:
    """Air between the wall and a lung that shrank towards its root: darker, without vessels, behind a thin line."""
    lung = anatomy.lungs[int(rng.integers(len(anatomy.lungs)))]
    rows, cols = np.flatnonzero(lung.any(axis=1)), np.flatnonzero(lung.any(axis=0))
    height = rows[-1] + 1 - rows[0]
    medial = cols[0] if (cols[0] + cols[-1]) / 2 > anatomy.middle_col else cols[-1]
    # The lung shrinks towards its root at the medial side, low enough that air gathers at the top and the side.
    root = (rows[0] + rng.uniform(0.70, 0.95) * height, float(medial))
    shrunk = rng.uniform(*shrunk_to)
    # A soft mask, shrunk, is a smooth field: above one half inside the collapsed lung, near one half on its surface.
    soft = ndimage.gaussian_filter(lung.astype(np.float32), 0.012 * anatomy.width_px, truncate=2.5)
    field = _shrink(soft, root, shrunk, shrunk + rng.uniform(-0.06, 0.08))
    air = lung & (field < 0.5)
    # Slivers along the heart and the diaphragm are not where air shows: keep the largest part.
    parts, count = ndimage.label(ndimage.binary_opening(air, iterations=1))
    if not count:
        return image.copy(), np.zeros(image.shape, dtype=bool)
    air &= ndimage.binary_dilation(parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:])), iterations=1)
    line = np.clip(1 - np.abs(field - 0.5) / 0.22, 0, 1)
    reach = ndimage.binary_dilation(air, iterations=max(int(np.ceil(0.02 * anatomy.width_px)), 1))
    mask = lung & (air | (reach & (line > 0)))
    # Darker where the air is, and over the surface of the lung a bright line.
    depth = np.clip((0.5 - field) / 0.10, 0, 1)
    darker = np.minimum(rng.uniform(*darker_spans) * anatomy.span * depth, 0.6 * image)
    change = line_spans * anatomy.span * line - darker
    if anatomy.markings is not None:
        change = change - 0.85 * anatomy.markings * depth
    # Where line and air cancel out, they are drawn apart: the mask has no hole.
    weak = np.abs(change) < SMALLEST_CHANGE
    change = np.where(weak, np.where(air, -SMALLEST_CHANGE, SMALLEST_CHANGE), change).astype(np.float32)
    return _apply(image, change, mask)


def atelectasis(
    rng: np.random.Generator,
    image: FloatImage,
    anatomy: Anatomy,
    *,
    half_thick_widths: Range = (0.006, 0.020),
    peak_spans: Range = (0.35, 0.75),
) -> tuple[FloatImage, Mask]:
    """One to three thin plates, tilted and slightly bent, in the lower two thirds of a lung: collapsed subsegments."""
    mask = np.zeros(image.shape, dtype=bool)
    change = np.zeros(image.shape, dtype=np.float32)
    lung = anatomy.lungs[int(rng.integers(len(anatomy.lungs)))]
    rows, cols = np.nonzero(lung)
    low = rows > rows.min() + (rows.max() - rows.min()) / 3
    rows, cols = rows[low], cols[low]
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(rows)))
        centre = (float(rows[at]), float(cols[at]))
        half_length = rng.uniform(0.10, 0.25) * anatomy.width_px
        half_thick = max(rng.uniform(*half_thick_widths) * anatomy.width_px, 1.0)
        box = _around(centre, 1.3 * half_length, image.shape)
        across, down = _offsets(box, centre, 1.0)
        turn = rng.uniform(-0.6, 0.6)
        along = (across * np.cos(turn) + down * np.sin(turn)) / half_length
        bend = rng.uniform(-1.5, 1.5) * half_thick * along**2
        beside = (down * np.cos(turn) - across * np.sin(turn) - bend) / half_thick
        inside = 1 - along**2 - beside**2
        here = (inside > 0) & lung[box]
        peak = rng.uniform(*peak_spans) * anatomy.span
        mask[box] |= here
        np.maximum(change[box], _from_edge(np.clip(inside, 0, 1), peak, 0.2), out=change[box], where=here)
    return _apply(image, change, mask)


def _subtle_atelectasis(rng: np.random.Generator, image: FloatImage, anatomy: Anatomy) -> tuple[FloatImage, Mask]:
    """Thin plates, or the bottom of a lung less aerated, as where a patient does not breathe in."""
    if rng.random() < 0.5:
        return atelectasis(rng, image, anatomy, half_thick_widths=(0.003, 0.012), peak_spans=(0.10, 0.50))
    return _cloudy_base(rng, image, anatomy, depth_heights=(0.10, 0.30), peak_spans=(0.15, 0.70))


def _cloudy_base(
    rng: np.random.Generator, image: FloatImage, anatomy: Anatomy, *, depth_heights: Range, peak_spans: Range
) -> tuple[FloatImage, Mask]:
    """A cloudy wedge at the bottom of a lung, highest beside the heart, with no sharp level."""
    lung = anatomy.lungs[int(rng.integers(len(anatomy.lungs)))]
    rows, cols = np.flatnonzero(lung.any(axis=1)), np.flatnonzero(lung.any(axis=0))
    box = (slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1))
    across, down = _offsets(box, (float(box[0].start), float(box[1].start)), 1.0)
    medial = 1 - across / (cols[-1] + 1 - cols[0])
    medial = medial if (cols[0] + cols[-1]) / 2 > anatomy.middle_col else 1 - medial
    # The floor is the lung's own lower edge in each column, as the diaphragm is a dome; above the heart there is none.
    height = rows[-1] + 1 - rows[0]
    floor = np.maximum(height - np.argmax(lung[box][::-1], axis=0), 0.85 * height)
    depth = rng.uniform(*depth_heights) * height * (0.4 + 0.9 * medial)
    above_floor = (floor - down) / depth  # 0 on the diaphragm, 1 at the cloud's upper edge
    field = 1 - above_floor + 0.3 * clouds(rng, above_floor.shape, 0.06 * anatomy.width_px)
    here = (field > 0) & (above_floor >= 0) & lung[box]
    profile = np.clip(field, 0, 1) * (0.4 + 0.6 * _thinning(lung, anatomy)[box])
    mask = np.zeros(image.shape, dtype=bool)
    change = np.zeros(image.shape, dtype=np.float32)
    mask[box] = here
    change[box] = _from_edge(profile, rng.uniform(*peak_spans) * anatomy.span, 0.05)
    return _apply(image, change, mask)


def cardiomegaly(rng: np.random.Generator, image: FloatImage, anatomy: Anatomy) -> tuple[FloatImage, Mask]:
    """The image's own heart, widened from its middle: the lung beside it is pressed together, and it is denser."""
    lung = np.logical_or.reduce(anatomy.lungs)
    rows = np.flatnonzero(lung.any(axis=1))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    half_width = rng.uniform(0.32, 0.40) * anatomy.width_px
    half_height = rng.uniform(0.28, 0.36) * (bottom - top)
    centre = (bottom - 0.85 * half_height, anatomy.middle_col + rng.uniform(0.02, 0.07) * anatomy.width_px)
    box = _around(centre, max(half_width, half_height), image.shape)
    across, down = _offsets(box, centre, 1.0)
    radius = np.hypot(across / half_width, down / half_height)
    # Where a pixel comes from: near the middle a smaller offset, at the rim its own place.
    wider = rng.uniform(1.35, 1.65)
    outwards = np.clip((radius - 0.55) / 0.45, 0, 1)
    shrink = 1 / wider + (1 - 1 / wider) * outwards**2 * (3 - 2 * outwards)
    source = (centre[0] - 0.5 + down * (0.75 + 0.25 * shrink), centre[1] - 0.5 + across * shrink)
    widened = ndimage.map_coordinates(image, source, order=1, mode="nearest")
    denser = rng.uniform(0.02, 0.12) * anatomy.span * np.sqrt(np.clip(1 - radius**2, 0, 1))
    change = np.zeros(image.shape, dtype=np.float32)
    change[box] = widened + denser - image[box]
    change[np.abs(change) < SMALLEST_CHANGE] = SMALLEST_CHANGE  # or the mask would have holes
    mask = np.zeros(image.shape, dtype=bool)
    mask[box] = radius < 1
    return _apply(image, change, mask)


KINDS: Mapping[str, Painter] = {
    "nodule": nodule,
    "mass": mass,
    "atelectasis": atelectasis,
    "consolidation": consolidation,
    "effusion": effusion,
    "pneumothorax": pneumothorax,
    "cardiomegaly": cardiomegaly,
}
"""The kinds that can be painted into any image with lungs, as they look when plain."""

LOOKS: Mapping[Look, Mapping[str, Painter]] = {
    "plain": KINDS,
    "subtle": {
        "nodule": partial(nodule, radius_widths=(0.014, 0.054), peak_spans=(0.20, 0.90)),
        "mass": partial(mass, radius_widths=(0.054, 0.150), peak_spans=(0.25, 1.00)),
        "atelectasis": _subtle_atelectasis,
        "consolidation": partial(consolidation, half_axis_widths=(0.08, 0.30), peak_spans=(0.15, 0.90)),
        "effusion": partial(effusion, depth_heights=(0.06, 0.45)),
        "pneumothorax": partial(pneumothorax, shrunk_to=(0.70, 0.90), darker_spans=(0.08, 0.35), line_spans=0.12),
        "cardiomegaly": cardiomegaly,
    },
}
"""The same kinds by how easily they are seen: plain, to learn and to show; subtle, as in radiographs."""


def _apply(image: FloatImage, change: FloatImage, mask: Mask) -> tuple[FloatImage, Mask]:
    """Adds a change within a mask; pixels that stay less than half a level away from what they were leave the mask."""
    changed = np.clip(np.where(mask, image + change, image), 0, 1).astype(np.float32)
    held = np.abs(changed - image) >= SMALLEST_CHANGE / 2
    mask = mask & held
    return np.where(mask, changed, image), mask


def _from_edge(profile: FloatImage, peak: float, edge: float) -> FloatImage:
    """A change that starts at a share ``edge`` of its peak where the profile is 0, and never below the smallest one."""
    return np.maximum(peak * (edge + (1 - edge) * profile), SMALLEST_CHANGE).astype(np.float32)


def _thinning(lung: Mask, anatomy: Anatomy) -> FloatImage:
    """0 at the sides of a lung, where the chest curves away and little lung is crossed, 1 further in; (row, col)."""
    reach = max(2 * round(0.035 * anatomy.width_px) + 1, 3)
    return np.clip(2 * ndimage.uniform_filter1d(lung.astype(np.float32), reach, axis=1) - 1, 0, 1)


def _place(rng: np.random.Generator, anatomy: Anatomy, clearance_px: float, taken: Mask) -> tuple[float, float] | None:
    """A (row, col) in a lung, drawn evenly over area, whose circle lies in it too; None after 60 misses."""
    lung = anatomy.lungs[0] if len(anatomy.lungs) == 1 else anatomy.lungs[0] | anatomy.lungs[1]
    inside = np.flatnonzero(lung)
    angles = np.arange(8) * (np.pi / 4)
    for at in rng.choice(inside, size=60):
        row, col = divmod(int(at), lung.shape[1])
        rows = np.rint(row + clearance_px * np.sin(angles)).astype(int)
        cols = np.rint(col + clearance_px * np.cos(angles)).astype(int)
        if rows.min() < 0 or cols.min() < 0 or rows.max() >= lung.shape[0] or cols.max() >= lung.shape[1]:
            continue
        apart = _around((row, col), 2.5 * clearance_px, lung.shape)
        if lung[rows, cols].all() and not taken[apart].any():
            return row + 0.5, col + 0.5
    return None


def _around(centre_rc: tuple[float, float], reach_px: float, size_rc: tuple[int, ...]) -> tuple[slice, slice]:
    """The part of an image within a distance of a point, as slices."""
    (row, col), reach = centre_rc, int(np.ceil(reach_px)) + 1
    rows = slice(max(int(row) - reach, 0), min(int(row) + reach + 1, size_rc[0]))
    return rows, slice(max(int(col) - reach, 0), min(int(col) + reach + 1, size_rc[1]))


def _offsets(box: tuple[slice, slice], centre_rc: tuple[float, float], unit_px: float) -> tuple[FloatImage, FloatImage]:
    """How far the pixels of a box lie to the right of and below a point, in units."""
    down = (np.arange(box[0].start, box[0].stop, dtype=np.float32)[:, None] + 0.5 - centre_rc[0]) / unit_px
    across = (np.arange(box[1].start, box[1].stop, dtype=np.float32)[None] + 0.5 - centre_rc[1]) / unit_px
    shape = (box[0].stop - box[0].start, box[1].stop - box[1].start)
    return np.broadcast_to(across, shape).astype(np.float32), np.broadcast_to(down, shape).astype(np.float32)


def clouds(rng: np.random.Generator, shape: tuple[int, ...], grain_px: float) -> FloatImage:
    """Smooth noise of about -1 to 1 whose blobs are ``grain_px`` wide: normal values on a coarse grid, interpolated."""
    coarse = [max(int(np.ceil(n / max(grain_px, 1.0))) + 2, 4) for n in shape]
    values = rng.standard_normal(coarse, dtype=np.float32) * 0.6
    # Linear along each axis: two small matrix products, far cheaper than a spline zoom.
    matrices = []
    for n, cells in zip(shape, coarse, strict=True):
        where = np.linspace(0, cells - 1.001, n)
        low = where.astype(int)
        share = (where - low).astype(np.float32)
        share = share * share * (3 - 2 * share)  # smooth at the grid points
        matrix = np.zeros((n, cells), dtype=np.float32)
        matrix[np.arange(n), low] = 1 - share
        matrix[np.arange(n), low + 1] = share
        matrices.append(matrix)
    return np.clip(matrices[0] @ values @ matrices[1].T, -1.2, 1.2)


def _part_at(mask: Mask, centre_rc: tuple[float, float], box: tuple[slice, slice]) -> Mask:
    """The connected part of a mask that holds a point, or else its largest part."""
    parts, count = ndimage.label(mask)
    if not count:
        return mask
    at = parts[int(centre_rc[0]) - box[0].start, int(centre_rc[1]) - box[1].start]
    return parts == (at or 1 + int(np.argmax(np.bincount(parts.ravel())[1:])))


def _shrink(image: FloatImage, towards_rc: tuple[float, float], down: float, across: float) -> FloatImage:
    """An image scaled about a point, linear; what comes from outside is 0."""
    scale = np.array([1 / down, 1 / across])
    offset = np.array(towards_rc) * (1 - scale)
    return ndimage.affine_transform(image, scale, offset, order=1)
