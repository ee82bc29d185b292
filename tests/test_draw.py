"""Pictures: what is drawn is where and as strong as it should be, and files are whole."""

import io

import numpy as np
import pytest
from PIL import Image

from radtag import draw, regions
from radtag.geometry import Frame, Grid, laid_on_original

IMAGE = np.full((60, 90), 0.4, np.float32)


def test_a_healthy_image_stays_as_it_is():
    np.testing.assert_array_equal(draw.overlay(IMAGE, np.zeros_like(IMAGE)), draw.gray(IMAGE))
    faint = draw.overlay(IMAGE, np.full_like(IMAGE, 0.02)).astype(int)
    assert np.abs(faint - draw.gray(IMAGE)).max() <= 3


def test_a_map_is_drawn_on_its_absolute_scale():
    high, low = np.zeros_like(IMAGE), np.zeros_like(IMAGE)
    high[10, 20], low[10, 20] = 1.0, 0.3
    change = [np.abs(draw.overlay(IMAGE, map_)[10, 20].astype(int) - 102).sum() for map_ in (high, low)]
    assert change[0] > 2 * change[1] > 0
    assert (draw.overlay(IMAGE, high)[11, 20] == 102).all()


def test_the_strongest_map_value_has_the_brightest_colour_of_inferno():
    # inferno's last colour is (0.988362, 0.998364, 0.644924); a quarter of gray 102 shows through.
    expected = np.rint(0.75 * 255 * np.array([0.988362, 0.998364, 0.644924]) + 0.25 * 102)
    np.testing.assert_array_equal(draw.overlay(IMAGE, np.ones_like(IMAGE))[0, 0], expected)


def test_an_outline_lies_on_the_inner_edge():
    mask = np.zeros(IMAGE.shape, bool)
    mask[20:30, 40:60] = True
    before = draw.gray(IMAGE)
    drawn = (draw.outline(before, mask) == 255).all(axis=2)
    edge = mask.copy()
    edge[21:29, 41:59] = False
    np.testing.assert_array_equal(drawn, edge)
    assert (before == 102).all(), "the picture given was drawn into"


def test_true_and_predicted_boxes_differ_in_colour_and_stroke():
    boxes = draw.boxes(draw.gray(IMAGE), true_xyxy=[(10, 5, 30, 25)], predicted_xyxy=[(40, 5, 80, 45)])
    assert (boxes[5, 10:30] == draw.TRUE).all()
    assert (boxes[24, 10:30] == draw.TRUE).all()
    assert (boxes[5:25, 29] == draw.TRUE).all()
    dashes = (boxes[5, 40:80] == draw.PREDICTED).all(axis=1)
    assert dashes[0]
    assert 10 < dashes.sum() < 30
    assert (boxes[6, 11:29] == draw.HALO[0]).all()
    assert (boxes[7:23, 12:28] == 102).all()


def test_boxes_are_as_wide_as_asked():
    wide = draw.boxes(draw.gray(IMAGE), true_xyxy=[(10, 5, 30, 25)], width_px=2)
    assert (wide[5:7, 10:30] == draw.TRUE).all()
    assert (wide[7:23, 10:12] == draw.TRUE).all()


def test_the_peak_is_a_cross_on_its_pixel():
    cross = (draw.boxes(draw.gray(IMAGE), peak_xy=(50.5, 30.5)) == 255).all(axis=2)
    rows, cols = np.nonzero(cross)
    assert set(rows[cols != 50]) == {30}
    assert set(cols[rows != 30]) == {50}
    assert (rows.min(), rows.max()) == (24, 36)


def test_a_box_over_the_border_is_drawn_as_far_as_it_goes():
    assert draw.boxes(draw.gray(IMAGE), true_xyxy=[(-20, -5, 200, 20)]).shape == (60, 90, 3)


def test_a_label_strip_goes_above_and_breaks_what_does_not_fit():
    short = draw.labelled(draw.gray(IMAGE), ["Effusion"])
    assert short.shape[1:] == (90, 3)
    assert (short[-60:] == 102).all()
    assert (short[:-60] == draw.PAPER[0]).any()
    words = draw.labelled(draw.gray(IMAGE), ["Enlarged heart 0.83 (positive from 0.50)"])
    assert words.shape[0] > short.shape[0]
    one_word = draw.labelled(draw.gray(IMAGE), ["Cardiomediastinum"])
    assert one_word.shape == short.shape


def _mark(caption: str, number: int, x: int) -> draw.Mark:
    mask = np.zeros(IMAGE.shape, bool)
    mask[20:30, x : x + 20] = True
    return draw.Mark(caption, mask, [(x - 2.0, 18.0, x + 22.0, 33.0)], (x + 5.5, 25.5), number)


def test_a_small_image_is_enlarged_until_its_captions_fit():
    caption = "Enlarged Cardiomediastinum 0.83 (positive from 0.50)"
    drawn = np.asarray(draw.annotated(IMAGE, np.zeros_like(IMAGE), [_mark(caption, 0, 40)]))
    assert drawn.shape[1] == 6 * 90
    strip = drawn[: len(drawn) - 6 * 60]
    one_line = draw.labelled(draw.gray(np.zeros((1, 540), np.float32)), ["x"])[:-1]
    assert strip.shape == one_line.shape, "the caption takes more than a line"
    assert (strip[:, -16:] == draw.PAPER).all(), "the caption reaches the border"
    # A pixel is a square of six: the mask's edge, a line of one pixel, lies on its outermost row.
    below = drawn[len(strip) :]
    assert (below[6 * 20, 6 * 45 : 6 * 55] == 255).all()
    assert (below[6 * 20 + 1, 6 * 47 : 6 * 55] == 102).all()
    peak = below[6 * 25 + 3, 6 * 45 + 3]
    assert (peak == 255).all()


def test_findings_are_told_apart_by_colour():
    drawn = np.asarray(draw.annotated(IMAGE, np.zeros_like(IMAGE), [_mark("one", 1, 10), _mark("two", 2, 60)]))
    strip, below = drawn[: len(drawn) - 360], drawn[len(drawn) - 360 :]
    halves = {1: (strip[: len(strip) // 2], below[:, :270]), 2: (strip[len(strip) // 2 :], below[:, 270:])}
    for number, (caption, part) in halves.items():
        own = draw.MARKS[number]
        assert (caption == own).all(axis=2).any()
        left = 6 * (10 if number == 1 else 60 - 45)
        assert (part[120, left + 30 : left + 60] == own).all(), "outline"
        assert (part[6 * 18, left - 12] == own).all(), "box"
        assert (part[6 * 25 + 3, left + 33] == own).all(), "peak"
        other = draw.MARKS[3 - number]
        assert not (part == other).all(axis=2).any()
    assert len(set(draw.MARKS)) == len(draw.MARKS)
    assert draw.TRUE not in draw.MARKS


def test_a_sheet_keeps_the_pictures_of_any_sizes():
    pictures = [np.full((h, w, 3), value, np.uint8) for h, w, value in ((4, 6, 50), (8, 3, 100), (2, 9, 150))]
    sheet = draw.sheet(pictures, columns=2, gap_px=1)
    assert sheet.shape == (8 + 1 + 2, 9 + 1 + 3, 3)
    assert (sheet[:4, :6] == 50).all()
    assert (sheet[:8, 10:] == 100).all()
    assert (sheet[9:, :9] == 150).all()
    assert draw.side_by_side(pictures, gap_px=0).shape == (8, 18, 3)
    assert draw.sheet([draw.gray(IMAGE)], cell_px=45).shape == (30, 45, 3)


def test_maps_are_16_bit_gray_and_masks_1_bit(tmp_path):
    random = np.random.default_rng(0)
    map_ = random.random((5, 9)).astype(np.float32)
    map_[0, :3] = 0, 1, 1.5
    draw.write_map(tmp_path / "maps" / "a.png", map_)
    with Image.open(tmp_path / "maps" / "a.png") as image:
        assert image.mode in ("I;16", "I;16B", "I")
        assert image.size == (9, 5)
        stored = np.asarray(image)
    np.testing.assert_array_equal(stored, np.rint(np.clip(map_, 0, 1).astype(np.float64) * 65535))
    np.testing.assert_allclose(draw.read_map(tmp_path / "maps" / "a.png"), np.clip(map_, 0, 1), atol=1e-5)
    draw.write_mask(tmp_path / "mask.png", map_ > 0.5)
    with Image.open(tmp_path / "mask.png") as image:
        assert image.mode == "1"
        np.testing.assert_array_equal(np.asarray(image), map_ > 0.5)


@pytest.mark.parametrize("size_rc", [(1, 1), (5, 9), (300, 413)])
def test_maps_and_masks_of_any_size_come_back_band_by_band(monkeypatch, size_rc):
    monkeypatch.setattr(draw, "_rows_at_once", lambda bytes_of_row: 70)
    stored = np.random.default_rng(0).integers(0, 65536, size_rc)
    map_ = (stored / 65535).astype(np.float32)
    for data in (draw.encode_map(map_), draw.encode_map(np.asfortranarray(map_))):
        with Image.open(io.BytesIO(data)) as image:
            np.testing.assert_array_equal(np.asarray(image), stored)
    with Image.open(io.BytesIO(draw.encode_mask(map_ > 0.5))) as image:
        np.testing.assert_array_equal(np.asarray(image), map_ > 0.5)


@pytest.mark.parametrize(
    ("cells", "size_rc", "offset"),
    [
        ((64, 64), (1024, 700), 0.0),  # PYLON on a radiograph
        ((8, 8), (1000, 1024), 0.4),  # CAM, whose cells look elsewhere than at their tiles
        ((2, 1), (40, 3), 0.0),
        ((50, 60), (100, 120), 0.0),  # cells hardly larger than pixels
        ((5, 5), (1, 1), 0.0),
    ],
)
def test_a_map_packed_while_it_is_laid_is_the_map(monkeypatch, cells, size_rc, offset):
    monkeypatch.setattr(draw, "_rows_at_once", lambda bytes_of_row: 70)
    random = np.random.default_rng(1)
    values = random.random(cells).astype(np.float32) ** 6
    values[: cells[0] // 2] = np.round(values[: cells[0] // 2])  # 0 and 1 side by side: no row may wrap around
    values.flat[-1] = 9 / 65535  # less than a level a row
    values.flat[:1] = 0
    grid = Grid(cells, tuple(256 / n for n in cells), tuple(256 / n * (0.5 + offset) for n in cells))
    laid = laid_on_original(values, grid, Frame.stretch(size_rc, (256, 256)))
    with Image.open(io.BytesIO(draw.encode_laid_map(laid))) as image:
        stored = np.asarray(image).astype(np.float64)
    assert stored.shape == size_rc
    wanted = 65535 * laid.rows(0, size_rc[0]).astype(np.float64)
    assert np.abs(stored - wanted).max() < 8.5
    assert np.abs(stored - wanted).mean() < 2


@pytest.mark.parametrize(
    ("rows", "cols"), [(slice(0, 7), slice(3, 29)), (slice(4, 12), slice(16, 30)), (slice(0, 0),) * 2]
)
def test_the_mask_of_a_part_is_packed_as_that_of_the_whole_image(rows, cols):
    size_rc = (12, 30)
    inside = np.random.default_rng(2).random((rows.stop - rows.start, cols.stop - cols.start)) < 0.5
    found = regions.Regions(regions.Part(rows, cols, size_rc), inside)
    assert draw.encode_regions(found) == draw.encode_mask(found.mask)


def test_the_highest_of_several_maps_in_bytes():
    cells = np.random.default_rng(4).random((3, 9, 7), np.float32) ** 3
    frame = Frame.stretch((300, 170), (90, 70))
    laid = [laid_on_original(one, Grid((9, 7), (10.0, 10.0), (5.0 + i, 4.0)), frame) for i, one in enumerate(cells)]
    exact = np.max([one.rows(0, 300) for one in laid], axis=0)
    assert np.abs(draw.highest(laid).astype(float) - 255 * exact).max() < 0.55


@pytest.mark.parametrize("size_rc", [(520, 640), (52, 64)])  # the small one is enlarged
def test_a_mask_is_outlined_where_it_lies(size_rc):
    map_ = np.zeros(size_rc, np.float32)
    mask = np.zeros(size_rc, bool)
    mask[20:30, 40:56] = mask[25:34, 38:42] = True
    whole = draw.annotated(map_, map_, [draw.Mark("one", mask, (), (3.5, 4.5))])
    part = draw.annotated(map_, map_, [draw.Mark("one", mask[20:34, 38:56], (), (3.5, 4.5), 0, (20, 38))])
    np.testing.assert_array_equal(np.asarray(part), np.asarray(whole))


def test_drawing_in_one_go_draws_the_same():
    size = (520, 640)
    random = np.random.default_rng(1)
    map_ = np.tile(np.linspace(0, 1, size[1], dtype=np.float32), (size[0], 1))
    mask = np.zeros(size, bool)
    mask[200:300, 400:560] = True
    pixels = draw.to_bytes(random.random(size, np.float32))
    peak, caption = (450.5, 250.5), "Effusion 0.83"
    slowly = draw.outline(draw.overlay(pixels, map_), mask)
    slowly = draw.labelled(draw.boxes(slowly, peak_xy=peak), [caption])
    once = np.asarray(draw.annotated(pixels, map_, [draw.Mark(caption, mask, (), peak)]))
    ink = (once[: len(once) - size[0]] != draw.PAPER).any(axis=2)
    assert (ink == (slowly[: len(once) - size[0]] != draw.PAPER).any(axis=2)).all()
    np.testing.assert_array_equal(once[-size[0] :], slowly[-size[0] :])
    plain = draw.annotated(pixels, map_)
    np.testing.assert_array_equal(np.asarray(plain), draw.overlay(pixels, map_))


def test_pictures_come_back(tmp_path):
    picture = draw.overlay(IMAGE, np.tile(np.linspace(0, 1, 90, dtype=np.float32), (60, 1)))
    draw.write_picture(tmp_path / "a.png", picture)
    draw.write_picture(tmp_path / "a.jpg", picture)
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), picture)
    with Image.open(tmp_path / "a.jpg") as image:
        assert np.abs(np.asarray(image).astype(int) - picture).mean() < 3
    with pytest.raises(ValueError, match=r"\.png, \.jpg or \.jpeg"):
        draw.write_picture(tmp_path / "a.gif", picture)


def test_a_failed_write_leaves_the_old_file_and_no_part(tmp_path, monkeypatch):
    path = tmp_path / "mask.png"
    draw.write_mask(path, IMAGE > 0)
    before = path.read_bytes()

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(draw.os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        draw.write_mask(path, IMAGE > 1)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_refuses_a_map_of_another_size():
    with pytest.raises(ValueError, match="does not lie over"):
        draw.overlay(IMAGE, IMAGE.T)
    with pytest.raises(ValueError, match="a picture and a column"):
        draw.sheet([])
