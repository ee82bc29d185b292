"""NIfTI volumes: slices, orientation, scaling and spacing, by hand on arrays of three different sides."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from radtag.errors import UnreadableImage
from radtag.images import count_frames, read, read_all, read_mask

# value = 100 i + 10 j + k on 3 x 4 x 5 voxels, so that each voxel tells where it came from
II, JJ, KK = np.meshgrid(np.arange(3), np.arange(4), np.arange(5), indexing="ij")
VOLUME = (100 * II + 10 * JJ + KK).astype(np.int16)
LAST = 234.0  # 100 * 2 + 10 * 3 + 4


def save(volume, path, affine=None, kind=nib.Nifti1Image, **header):
    image = kind(volume, np.diag([-2.0, -3.0, 4.0, 1.0]) if affine is None else affine)
    for key, value in header.items():
        image.header[key] = value
    nib.save(image, path)
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_without_a_frame_the_middle_slice_is_read(tmp_path, suffix, kind):
    path = save(VOLUME, tmp_path / f"a{suffix}", kind=kind)
    image = read(path)
    assert (image.frame, image.size_rc, image.spacing_mm) == (2, (4, 3), (3.0, 2.0))
    np.testing.assert_allclose(image.pixels, VOLUME[:, :, 2].T / LAST, atol=1e-7)
    assert image.meta["window"] == "minmax: 0 to 234"
    assert count_frames(path) == 5


def test_all_slices_share_one_scale(tmp_path):
    path = save(VOLUME, tmp_path / "a.nii")
    slices = list(read_all(path))
    assert [image.frame for image in slices] == [0, 1, 2, 3, 4]
    for k, image in enumerate(slices):
        np.testing.assert_allclose(image.pixels, VOLUME[:, :, k].T / LAST, atol=1e-7)
        np.testing.assert_array_equal(read(path, frame=k).pixels, image.pixels)
    with pytest.raises(UnreadableImage, match=r"frame 5 was asked for. It has 5 frames"):
        read(path, frame=5)


@pytest.mark.parametrize(
    ("affine", "shown", "axes"),
    [
        # (x, y, z) along (i, j, k): rows run to the back and columns to the left, whatever way they are stored.
        (np.diag([-1.0, -1, 1, 1]), lambda plane: plane.T, "PL"),
        (np.diag([1.0, 1, 1, 1]), lambda plane: plane[::-1, ::-1].T, "PL"),
        (np.diag([1.0, -1, 1, 1]), lambda plane: plane[::-1].T, "PL"),
        # (y, x, z): stored rows are rows
        (np.array([[0.0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), lambda plane: plane, "PL"),
        # (x, z, y), coronal slices: head up, patient's right on the left
        (np.array([[-1.0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]), lambda plane: plane[:, ::-1].T, "IL"),
        # (y, z, x), sagittal slices: head up, front on the left
        (np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]]), lambda plane: plane.T, "IP"),
    ],
)
def test_slices_are_shown_as_radiologists_see_them(tmp_path, affine, shown, axes):
    image = read(save(VOLUME, tmp_path / "a.nii", affine), frame=1)
    np.testing.assert_allclose(image.pixels, shown(VOLUME[:, :, 1]) / LAST, atol=1e-7)
    assert image.meta["axes"] == axes


def test_without_an_orientation_the_first_axis_runs_along_the_columns(tmp_path):
    image = nib.Nifti1Image(VOLUME, None)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(read(tmp_path / "a.nii", frame=0).pixels, VOLUME[:, :, 0].T / LAST, atol=1e-7)


def test_a_picture_of_two_axes(tmp_path):
    flat = np.array([[0, 51], [102, 153], [204, 255]], dtype=np.uint8)
    image = read(save(flat, tmp_path / "a.nii"))
    np.testing.assert_array_equal(image.pixels, (flat / np.float32(255)).T)
    assert image.meta["window"] == "stored range: 0 to 255"


def test_volumes_follow_each_other(tmp_path):
    path = save(np.stack([VOLUME, VOLUME + 1], axis=-1), tmp_path / "a.nii")
    assert count_frames(path) == 10
    assert read(path).frame == 2
    np.testing.assert_allclose(read(path, frame=8).pixels, (VOLUME[:, :, 3].T + 1) / (LAST + 1), atol=1e-7)


def test_cal_min_and_cal_max_are_the_files_own_window(tmp_path):
    image = read(save(VOLUME, tmp_path / "a.nii", cal_min=100, cal_max=200), frame=0)
    np.testing.assert_allclose(image.pixels, np.clip((VOLUME[:, :, 0].T - 100) / 100, 0, 1), atol=1e-7)
    assert image.meta["window"] == "cal_min 100 to cal_max 200"


def test_stored_integers_are_scaled_by_slope_and_intercept(tmp_path):
    nifti = nib.Nifti1Image(VOLUME.astype(np.float32) * 0.5 - 10, np.diag([-1.0, -1, 1, 1]))
    nifti.set_data_dtype(np.int16)
    nib.save(nifti, tmp_path / "a.nii")
    image = read(tmp_path / "a.nii", frame=0, window=(0.0, 20.0))
    np.testing.assert_allclose(image.pixels, np.clip((VOLUME[:, :, 0].T * 0.5) / 20, 0, 1), atol=1e-3)


def test_floats_within_0_and_1_are_kept_and_nan_is_0(tmp_path):
    values = np.full((2, 3, 1), 0.25, dtype=np.float32)
    values[0, 0, 0] = np.nan
    image = read(save(values, tmp_path / "a.nii"))
    np.testing.assert_array_equal(image.pixels, [[0, 0.25], [0.25, 0.25], [0.25, 0.25]])


def test_units_of_metres_and_microns_become_mm(tmp_path):
    for unit, factor in {"meter": 1000, "mm": 1, "micron": 0.001}.items():
        nifti = nib.Nifti1Image(VOLUME, np.diag([-2.0, -3.0, 4.0, 1.0]))
        nifti.header.set_xyzt_units(unit)
        nib.save(nifti, tmp_path / "a.nii")
        assert read(tmp_path / "a.nii").spacing_mm == pytest.approx((3 * factor, 2 * factor))


def test_colour(tmp_path):
    kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    values = np.zeros((2, 1, 1), dtype=kind)
    values["R"] = 255
    values[1, 0, 0] = (51, 51, 51)
    np.testing.assert_allclose(read(save(values, tmp_path / "a.nii")).pixels, [[0.299, 0.2]], atol=1e-6)


def test_the_content_decides_and_not_the_name(tmp_path):
    save(VOLUME, tmp_path / "a.nii.gz").rename(tmp_path / "a.png")
    assert read(tmp_path / "a.png").size_rc == (4, 3)


def test_masks(tmp_path):
    volume = np.zeros((3, 4, 2), dtype=np.float32)
    volume[1, 2, 1] = 3
    path = save(volume, tmp_path / "m.nii")
    expected = np.zeros((4, 3), dtype=bool)
    expected[2, 1] = True
    np.testing.assert_array_equal(read_mask(path, frame=1), expected)
    assert not read_mask(path, frame=0).any()
    with pytest.raises(UnreadableImage, match=r"2 frames. Choose one"):
        read_mask(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_a_truncated_volume_is_refused(tmp_path, suffix, share):
    noise = np.random.default_rng(0).integers(0, 1000, (20, 30, 4)).astype(np.int16)
    path = save(noise, tmp_path / f"cut{suffix}")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(UnreadableImage, match=r"cut"):
        list(read_all(path))


@pytest.mark.parametrize("shape", [(30_000, 30_000, 1), (2000, 2000, 30_000), (-5, 3, 2), (0, 3, 2)])
def test_sizes_that_are_none_or_a_bomb_are_refused(tmp_path, shape):
    path = save(VOLUME, tmp_path / "a.nii")
    data = bytearray(path.read_bytes())
    data[42:48] = np.array(shape, dtype="<i2").tobytes()
    for target in (tmp_path / "b.nii", tmp_path / "b.nii.gz"):
        target.write_bytes(gzip.compress(bytes(data)) if target.suffix == ".gz" else bytes(data))
        with pytest.raises(UnreadableImage, match=r"b\.nii"):
            read(target)


def test_more_than_four_axes_are_refused(tmp_path):
    with pytest.raises(UnreadableImage, match=r"at most four axes"):
        read(save(np.zeros((2, 3, 4, 1, 3), dtype=np.int16), tmp_path / "a.nii"))
