"""Localisation and classification measures: numpy in, numbers out, usable on anybody's maps.

Each module's docstring states its conventions; each function's, its formula and where it comes from. Undefined is NaN
and is counted, never an invented 0 or 1.

=============================================  =========================================================================
measure                                        function
=============================================  =========================================================================
AUROC, average precision of image scores       :func:`.classification.auroc`, :func:`.classification.average_precision`
Brier score, expected calibration error        :func:`.classification.brier`, :func:`.classification.calibration_error`
pointing accuracy (PYLON), with a margin       :func:`.points.pointing_hit`, :func:`.points.pointing_hits`
pointing game with its margin of 15 pixels     the same with ``margin_px=points.POINTING_GAME_MARGIN_PX``
hit rate on masks (CheXlocalize, Quantus)      :func:`.points.pointing_hit_mask`
mIoU (CheXlocalize), its masks and thresholds  :func:`.chexlocalize.mask_iou`, :func:`.chexlocalize.segmentation`,
                                               :func:`.chexlocalize.best_threshold`
T(IoBB), T(IoU) accuracy (PYLON)               :func:`.boxes.union_overlap` and its ``found``; :func:`.boxes.iobb`
box accuracy at IoU .1 to .5                   :func:`.detections.detections`, :func:`.boxes.best_iou`,
                                               :func:`.boxes.found_at_iou`
MaxBoxAcc, MaxBoxAccV2 (wsolevaluation)        :func:`.wsol.box_accuracy`
FROC, its mean sensitivity at 1/8 to 8         :func:`.froc.curve`, :meth:`.froc.Curve.score`
average precision at an IoU (COCO)             :func:`.froc.match_boxes`, :func:`.froc.average_precision`
Dice, IoU, precision, PoI                      :func:`.masks.overlap`
boundary distances, 95 % Hausdorff             :func:`.boundaries.boundary_distances`
PoI at matched area                            :func:`.masks.poi_at_matched_area`
normalised cross-correlation (VA-GAN)          :func:`.masks.ncc`
share of the map's mass on the mask            :func:`.masks.mass_in_mask`
pixel AUROC, pixel AP, PxAP                    :class:`.pixels.PixelHistogram`, :class:`.pixels.PixelRanking`
insertion, deletion (RISE), with a model       :func:`.perturbation.insertion`, :func:`.perturbation.deletion`
per finding, micro, macro with intervals       :class:`.bootstrap.Resampling`, then :func:`.bootstrap.mean`,
                                               :func:`.bootstrap.ranking`, :func:`.bootstrap.froc`,
                                               :func:`.bootstrap.detection_precision`,
                                               :func:`.bootstrap.calibration_error`, and their ``estimates``
differences of two systems                     :func:`.bootstrap.difference`, :func:`.bootstrap.paired_difference`
p-values, Holm's correction, ranks with ties   :func:`.significance.p_value`, :func:`.significance.holm`,
                                               :func:`.significance.ranks`
maps at the size they are scored at            :func:`.resize.bilinear`
=============================================  =========================================================================
"""

from radtag.metrics import (
    bootstrap,
    boundaries,
    boxes,
    chexlocalize,
    classification,
    detections,
    froc,
    masks,
    perturbation,
    pixels,
    points,
    resize,
    significance,
    wsol,
)
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
    "boundaries",
    "boxes",
    "chexlocalize",
    "classification",
    "detections",
    "froc",
    "masks",
    "perturbation",
    "pixels",
    "points",
    "resize",
    "significance",
    "wsol",
]
