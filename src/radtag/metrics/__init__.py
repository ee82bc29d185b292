"""Localisation and classification measures: numpy in, numbers out, usable on anybody's maps.

Each module's docstring states its conventions; each function's, its formula and where it comes from. Undefined is NaN
and is counted, never an invented 0 or 1.

=============================================  =========================================================================
measure                                        function
=============================================  =========================================================================
AUROC, average precision of image scores       :func:`.classification.auroc`, :func:`.classification.average_precision`
pointing accuracy (PYLON), with a margin       :func:`.points.pointing_hit`, :func:`.points.pointing_hits`
hit rate on masks (CheXlocalize, Quantus)      :func:`.points.pointing_hit_mask`
T(IoBB), T(IoU) accuracy (PYLON)               :func:`.boxes.union_overlap` and its ``found``; :func:`.boxes.iobb`
box accuracy at IoU .1 to .5                   :func:`.detections.detections`, :func:`.boxes.best_iou`,
                                               :func:`.boxes.found_at_iou`
Dice, IoU, precision, PoI                      :func:`.masks.overlap`
PoI at matched area                            :func:`.masks.poi_at_matched_area`
normalised cross-correlation (VA-GAN)          :func:`.masks.ncc`
share of the map's mass on the mask            :func:`.masks.mass_in_mask`
pixel AUROC, pixel AP, PxAP                    :class:`.pixels.PixelHistogram`, :class:`.pixels.PixelRanking`
per finding, micro, macro with intervals       :class:`.bootstrap.Resampling`, then :func:`.bootstrap.mean`,
                                               :func:`.bootstrap.ranking` and their ``estimates``
differences of two systems                     :func:`.bootstrap.difference`, :func:`.bootstrap.paired_difference`
maps at the size they are scored at            :func:`.resize.bilinear`
=============================================  =========================================================================
"""

from radtag.metrics import bootstrap, boxes, classification, detections, masks, pixels, points, resize
from radtag.metrics.bootstrap import Estimate, Estimates, Replicates, Resampling
from radtag.metrics.pixels import PixelHistogram, PixelRanking

__all__ = [
    "Estimate",
    "Estimates",
    "PixelHistogram",
    "PixelRanking",
    "Replicates",
    "Resampling",
    "bootstrap",
    "boxes",
    "classification",
    "detections",
    "masks",
    "pixels",
    "points",
    "resize",
]
