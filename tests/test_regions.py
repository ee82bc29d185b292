"""Masks, boxes and peaks, on arrays that are not square."""

import json

import numpy as np
import pytest
from scipy import ndimage

from radtag import regions
from radtag.geometry import Frame, Grid, reduce_mask, to_original


def drawn(rows: str) -> np.ndarray:
    """A map from digits: 7 is 0.7."""
    return np.array([[int(digit) / 10 for digit in row] for row in rows.split()], dtype=np.float32)


BLOBS = drawn("""
    0000000
    0550000
    0006000
    0000009
    0300000
""")


def test_boxes_are_half_open_eight_connected_and_listed_by_value():
    found = regions.find(BLOBS, 0.4, min_area_px=0)
    assert found.boxes_xyxy == ((6.0, 3.0, 7.0, 4.0), (1.0, 1.0, 4.0, 3.0))
    assert found.areas_px == (1, 3)
    assert found.values == pytest.approx((0.9, 0.6))
    assert found.area_px == found.mask.sum() == 4


def test_of_equally_high_components_the_larger_comes_first():
    found = regions.find(np.array([[1, 0, 1, 1, 0, 2]], np.float32), 0.5, min_area_px=0)
    assert found.boxes_xyxy == ((5, 0, 6, 1), (2, 0, 4, 1), (0, 0, 1, 1))


@pytest.mark.parametrize(("least", "limited"), [(0, False), (9, False), (4, True)])
@pytest.mark.parametrize("seed", range(6))
def test_components_are_those_of_scipy(seed, least, limited):
    random = np.random.default_rng(seed)
    # From noise to blobs, some over the border; rows that end and begin inside touch nothing there.
    map_ = ndimage.gaussian_filter(random.random((37, 58)), (0, 0.6, 1, 1.5, 3, 5)[seed]).astype(np.float32)
    threshold = float(np.quantile(map_, (0.5, 0.6, 0.7, 0.6, 0.5, 0.9)[seed]))
    area = random.random(map_.shape) < 0.95 if limited else None
    mask = map_ > threshold if area is None else (map_ > threshold) & area
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    expected = []
    for number, (rows, cols) in enumerate(ndimage.find_objects(labels), 1):
        component = labels == number
        if component.sum() >= least:
            box = float(cols.start), float(rows.start), float(cols.stop), float(rows.stop)
            expected.append((-float(map_[component].max()), -int(component.sum()), number, box))
        else:
            mask &= ~component
    expected.sort()
    found = regions.find(map_, threshold, min_area_px=least, area=area)
    np.testing.assert_array_equal(found.mask, mask)
    assert found.boxes_xyxy == tuple(box for *_, box in expected)
    assert found.areas_px == tuple(-area for _, area, *_ in expected)
    assert found.values == tuple(-value for value, *_ in expected)


@pytest.mark.parametrize("factor", [1, 2, 3, 7])
def test_a_mask_is_reduced_by_its_part(factor):
    random = np.random.default_rng(factor)
    part = regions.Part(slice(5, 31), slice(11, 40), (31, 44))
    found = regions.Regions(part, random.random((26, 29)) < 0.5)
    mask, (top, left) = found.reduced(factor)
    whole = np.zeros_like(reduce_mask(found.mask, factor))
    whole[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    np.testing.assert_array_equal(whole, reduce_mask(found.mask, factor))
    assert regions.Regions.none((31, 44)).reduced(factor)[0].size == 0


def test_the_threshold_itself_is_outside():
    assert regions.find(BLOBS, float(BLOBS[1, 1]), min_area_px=0).mask.sum() == 2
    assert regions.find(np.zeros((3, 5), np.float32), 0.0, min_area_px=0).area_px == 0


def test_a_part_of_a_map_gives_what_the_whole_gives():
    rows, cols = slice(1, 4), slice(1, 7)
    part = regions.Part(rows, cols, BLOBS.shape)
    found = regions.find(BLOBS[rows, cols], 0.4, min_area_px=0, part=part)
    whole = regions.find(BLOBS, 0.4, min_area_px=0)
    np.testing.assert_array_equal(found.mask, whole.mask)
    assert (found.boxes_xyxy, found.areas_px, found.values) == (whole.boxes_xyxy, whole.areas_px, whole.values)


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_above_the_threshold_outside_the_part_that_can_be(seed):
    random = np.random.default_rng(seed)
    layers = []
    for size_rc in ((7, 11), (4, 5)):
        grid = Grid(size_rc, (64 / size_rc[0], 64 / size_rc[1]), (random.uniform(0, 12), random.uniform(0, 12)))
        layers.append((random.random(size_rc, np.float32) ** 4, grid, Frame.letterbox((40, 90), (64, 64))))
    map_ = np.mean([to_original(*layer) for layer in layers], axis=0)
    part = regions.part_above(layers, 0.5)
    outside = np.ones(map_.shape, bool)
    outside[part.rows, part.cols] = False
    assert not (map_ > 0.5)[outside].any()
    assert part.size_rc == (40, 90)
    nowhere = regions.part_above(layers, 1.0)
    assert to_original(*layers[0], rows=nowhere.rows, cols=nowhere.cols).size == 0


@pytest.mark.parametrize(("values", "near"), [("smooth", True), ("plateaus", False)])
def test_peaks_are_the_first_largest_pixels_of_large_maps_to_the_last_bit(values, near):
    random = np.random.default_rng(3)
    maps = random.random((5, 30, 40), np.float32)
    if values == "plateaus":
        maps = np.minimum(2 * maps, 1)
    maps[:, 12, 7] = maps[:, 20, 30] = 1.0  # two cells as high as each other
    grid, frame = Grid((30, 40), (4.0, 3.0), (1.7, 2.2)), Frame.letterbox((170, 230), (120, 120))
    looked = regions._peaks_near_high_cells(maps, regions._axis(grid, frame, 0), regions._axis(grid, frame, 1))
    assert (looked is not None) == near
    for got, map_ in zip(regions.peaks([(maps, grid, frame)]), to_original(maps, grid, frame), strict=True):
        assert tuple(got) == (*regions.peak(map_), map_.max())


def test_small_components_are_dropped_from_the_mask_too():
    found = regions.find(BLOBS, 0.4, min_area_px=2)
    assert found.boxes_xyxy == ((1.0, 1.0, 4.0, 3.0),)
    assert not found.mask[3, 6]
    assert found.mask.sum() == 3


def test_the_smallest_component_kept_by_default_is_a_share_of_the_image():
    map_ = np.zeros((100, 160), np.float32)  # 0.00025 x 16000 = 4 pixels
    map_[10, 20:23] = 1
    map_[50, 20:24] = 1
    assert regions.find(map_, 0.5).boxes_xyxy == ((20.0, 50.0, 24.0, 51.0),)


def test_nothing_outside_the_area_counts():
    area = np.zeros(BLOBS.shape, bool)
    area[:, :3] = True
    found = regions.find(BLOBS, 0.2, min_area_px=0, area=area)
    assert found.boxes_xyxy == ((1.0, 1.0, 3.0, 2.0), (1.0, 4.0, 2.0, 5.0))
    assert not found.mask[:, 3:].any()
    assert area.sum() == 15


def test_peak_is_the_first_maximum_in_reading_order():
    assert regions.peak(BLOBS) == (6.5, 3.5)
    assert regions.peak(drawn("0000 0303 3000")) == (1.5, 1.5)


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize("original_rc", [(50, 70), (9, 7), (301, 64)])
def test_peaks_on_the_grid_are_the_peaks_in_original_pixels(fit, original_rc):
    random = np.random.default_rng(3)
    maps = random.random((20, 6, 8)).astype(np.float32)
    other = random.random((20, 5, 3)).astype(np.float32)
    frame = getattr(Frame, fit)(original_rc, (48, 64))
    layers = [
        (maps, Grid((6, 8), (8.0, 8.0), (-3.0, 2.5)), frame),
        (other, Grid.tiles((5, 3), (40, 40)), Frame.stretch(original_rc, (40, 40))),
    ]
    for some in (layers[:1], layers[1:], layers):
        full = np.mean([to_original(*layer) for layer in some], axis=0)
        got = regions.peaks(some)
        assert [tuple(row[:2]) for row in got] == [regions.peak(map_) for map_ in full]
        np.testing.assert_allclose(got[:, 2], full.max(axis=(1, 2)), rtol=1e-5)


def test_otsu_is_the_level_of_opencv_and_scikit_image(shared):
    golden = {
        entry["id"]: entry["values"] for entry in json.loads((shared / "golden/golden.json").read_text())["entries"]
    }
    opencv, skimage = golden["otsu.cv2_level.fullmap"], golden["otsu.skimage_level.fullmap"]["same_uint8_image"]
    truth = json.loads((shared / "golden/truth.json").read_text())
    inputs = np.load(shared / "golden/inputs.npz")
    compared = constant = 0
    for image in truth["images"]:
        for at, finding in enumerate(truth["findings"]):
            key, map_ = f"{image['id']}/{finding}", inputs[f"maps_{image['id']}"][at]
            threshold = regions.otsu_threshold(map_)
            if map_.min() == map_.max():
                assert np.isnan(threshold)
                assert regions.find(map_, threshold).area_px == 0
                constant += 1
                continue
            levels = np.uint8(255 * ((map_ - map_.min()) / (map_.max() - map_.min())))
            assert regions.otsu_level(levels) == opencv[key] == skimage[key]
            np.testing.assert_array_equal(map_ > threshold, levels > opencv[key])
            compared += 1
    assert compared + constant == 96
    assert constant < 20


def test_area_in_square_millimetres():
    assert regions.area_mm2(10, (0.5, 0.8)) == pytest.approx(4.0)
    assert np.isnan(regions.area_mm2(10, None))


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="rows x columns"):
        regions.find(np.zeros((2, 3, 4), np.float32), 0.5)
    with pytest.raises(ValueError, match="does not fit"):
        regions.find(BLOBS, 0.5, area=np.ones((7, 5), bool))
