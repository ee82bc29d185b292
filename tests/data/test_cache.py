"""Decode once: keyed by content, safe with several processes, whole or not at all, bounded."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import time
import tracemalloc
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from radtag.data import cache
from radtag.data.cache import PixelCache, open_cache
from radtag.data.prepare import lung_field, prepare
from radtag.errors import BadData
from radtag.images import Image, read

SIDE = 32


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    random = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    paths = [folder / f"{i}.png" for i in range(5)]
    for path in paths:
        PIL.Image.fromarray(random.integers(0, 256, (40, 56), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files read so far, in the order of reading."""
    log: list[Path] = []

    def counting(path: Path):
        log.append(path)
        return read(path)

    monkeypatch.setattr(cache, "read", counting)
    return log


def entries(root: Path) -> list[Path]:
    return sorted(one for one in (root / "pixels").iterdir() if one.is_dir())


def expected(paths: list[Path], fit: str = "stretch") -> np.ndarray:
    return np.stack([prepare(read(path), SIDE, fit)[0] for path in paths])


def test_the_pixels_are_the_prepared_images_in_order(files, tmp_path):
    found = open_cache(files, SIDE, "stretch", root=tmp_path)
    np.testing.assert_array_equal(found.pixels, expected(files))
    assert isinstance(found.pixels, np.memmap)
    assert not found.pixels.flags.writeable
    assert found.readable.all()
    assert found.failures == ()
    backwards = open_cache(files[::-1], SIDE, "stretch", root=tmp_path)
    np.testing.assert_array_equal(backwards.pixels, expected(files)[::-1])


def test_the_second_time_nothing_is_decoded(files, tmp_path, decoded):
    open_cache(files, SIDE, "stretch", root=tmp_path)
    assert sorted(decoded) == files
    again = open_cache(files, SIDE, "stretch", root=tmp_path)
    assert len(decoded) == 5
    np.testing.assert_array_equal(again.pixels, expected(files))


def test_size_and_fit_are_part_of_the_key(files, tmp_path):
    open_cache(files, SIDE, "stretch", root=tmp_path)
    boxed = open_cache(files, SIDE, "letterbox", root=tmp_path)
    np.testing.assert_array_equal(boxed.pixels, expected(files, "letterbox"))
    assert open_cache(files, 64, "stretch", root=tmp_path).pixels.shape == (5, 64, 64)
    assert len(entries(tmp_path)) == 3


def test_a_changed_file_never_meets_the_old_entry(files, tmp_path, decoded):
    before = np.array(open_cache(files, SIDE, "stretch", root=tmp_path).pixels)
    PIL.Image.fromarray(np.full((40, 56), 200, np.uint8)).save(files[2])
    after = open_cache(files, SIDE, "stretch", root=tmp_path).pixels
    assert np.all(after[2] == 200)
    np.testing.assert_array_equal(np.delete(after, 2, 0), np.delete(before, 2, 0))
    assert len(decoded) == 10


def test_the_same_content_elsewhere_is_not_decoded_again(files, tmp_path, decoded):
    open_cache(files, SIDE, "stretch", root=tmp_path)
    moved = shutil.copytree(files[0].parent, tmp_path / "moved")
    found = open_cache([moved / path.name for path in files], SIDE, "stretch", root=tmp_path)
    np.testing.assert_array_equal(found.pixels, expected(files))
    assert len(decoded) == 5
    assert len(entries(tmp_path)) == 1


def test_an_unreadable_file_is_reported_and_the_rest_goes_on(files, tmp_path, decoded):
    files[1].write_bytes(b"no image")
    files[3].unlink()
    for _ in range(2):  # decoded, then from the entry
        found = open_cache(files, SIDE, "stretch", root=tmp_path)
        assert found.readable.tolist() == [True, False, True, False, True]
        assert [path for path, _ in found.failures] == [str(files[1]), str(files[3])]
        assert all(cause and not cause.startswith(path) for path, cause in found.failures)
        assert not found.pixels[[1, 3]].any()
        np.testing.assert_array_equal(found.pixels[::2], expected(files[::2]))
    assert len(decoded) == 5


def test_a_failure_names_the_file_of_today(files, tmp_path):
    files[1].write_bytes(b"no image")
    open_cache(files, SIDE, "stretch", root=tmp_path)
    moved = shutil.copytree(files[0].parent, tmp_path / "moved")
    found = open_cache([moved / path.name for path in files], SIDE, "stretch", root=tmp_path)
    assert [path for path, _ in found.failures] == [str(moved / "1.png")]


def test_a_missing_file_that_appears_is_decoded(files, tmp_path):
    content = files[3].read_bytes()
    files[3].unlink()
    assert not open_cache(files, SIDE, "stretch", root=tmp_path).readable[3]
    files[3].write_bytes(content)
    assert open_cache(files, SIDE, "stretch", root=tmp_path).readable.all()


def test_what_the_machine_did_not_let_us_read_is_read_the_next_time(files, tmp_path, monkeypatch, decoded):
    """Not kept for ever under a key that knows the file's content, which is good."""
    counting, refused = cache.read, {files[1]: PermissionError(13, "Permission denied"), files[3]: MemoryError()}

    def reading(path: Path):
        image = counting(path)
        if path in refused:
            raise refused[path]
        return image

    monkeypatch.setattr(cache, "read", reading)
    files[4].write_bytes(b"no image")  # which stays so
    first = open_cache(files, SIDE, "stretch", root=tmp_path)
    assert first.readable.tolist() == [True, False, True, False, False]
    assert [cause for _, cause in first.failures][:2] == ["[Errno 13] Permission denied", "MemoryError"]
    decoded.clear()
    refused.pop(files[1])
    second = open_cache(files, SIDE, "stretch", root=tmp_path)
    assert second.readable.tolist() == [True, True, True, False, False]
    assert sorted(decoded) == [files[1], files[3]]
    refused.clear()
    third = open_cache(files, SIDE, "stretch", root=tmp_path)
    assert third.readable.tolist() == [True, True, True, True, False]
    np.testing.assert_array_equal(third.pixels[:4], expected(files[:4]))
    decoded.clear()
    open_cache(files, SIDE, "stretch", root=tmp_path)
    assert decoded == []
    assert len(entries(tmp_path)) == 1


def test_nothing_readable_is_an_error(tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(BadData, match=rf"^none of 2 images could be read; the first: {broken}: "):
        open_cache([broken, tmp_path / "absent.png"], SIDE, "stretch", root=tmp_path)


@pytest.mark.parametrize("part", ["header", "pixels", "about", "length", "absent"])
def test_a_damaged_entry_is_made_again(files, tmp_path, decoded, part):
    files[1].write_bytes(b"no image")
    whole = np.array(open_cache(files, SIDE, "stretch", root=tmp_path).pixels)
    (entry,) = entries(tmp_path)
    file = entry / ("about.json" if part == "about" else "pixels.npy")
    content = file.read_bytes()
    places = {
        "header": [*range(0, 90, 3), 127],
        "pixels": [128 + 2 * SIDE * SIDE, len(content) - 1],
        "about": range(0, len(content), 5),
        "length": [-1],
        "absent": [-1],
    }[part]
    for at in places:
        if part == "length":
            file.write_bytes(content[:-100])
        elif part == "absent":
            file.unlink()
        else:
            file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        found = open_cache(files, SIDE, "stretch", root=tmp_path)
        np.testing.assert_array_equal(found.pixels, whole, err_msg=f"byte {at}")
        assert found.readable.tolist() == [True, False, True, True, True], at
        assert [path for path, _ in found.failures] == [str(files[1])], at
    if part in ("pixels", "length", "absent"):
        assert len(decoded) == 5 * (1 + len(places))  # noticed every time


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "7", '{"a": 1'])
def test_a_damaged_index_of_digests_is_made_again(files, tmp_path, content):
    open_cache(files, SIDE, "stretch", root=tmp_path)
    (tmp_path / "pixels" / "digests.json").write_text(content)
    found = open_cache(files, SIDE, "stretch", root=tmp_path)
    np.testing.assert_array_equal(found.pixels, expected(files))
    assert len(json.loads((tmp_path / "pixels" / "digests.json").read_text())) == 5


def test_a_killed_process_leaves_nothing_half_made(files, tmp_path, monkeypatch):
    def killed(path: Path):
        if path == files[3]:
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(cache, "read", killed)
    with pytest.raises(KeyboardInterrupt):
        open_cache(files, SIDE, "stretch", root=tmp_path)
    assert all(one.suffix == ".tmp" for one in entries(tmp_path))  # no entry under its own name
    monkeypatch.setattr(cache, "read", read)
    np.testing.assert_array_equal(open_cache(files, SIDE, "stretch", root=tmp_path).pixels, expected(files))


def _open_at_once(paths, root, barrier, answers) -> None:
    decoded = []

    def counting(path: Path):
        decoded.append(path)
        time.sleep(0.05)  # long enough for the other process to arrive
        return read(path)

    cache.read = counting
    barrier.wait(timeout=60)
    found = open_cache(paths, SIDE, "stretch", root=root)
    answers.put((len(decoded), int(found.pixels.sum()), bool(found.readable.all())))


def test_two_processes_at_once_decode_once(files, tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(2), context.Queue()
    both = [context.Process(target=_open_at_once, args=(files, tmp_path, barrier, answers)) for _ in range(2)]
    for one in both:
        one.start()
    results = sorted(answers.get(timeout=60) for _ in both)
    for one in both:
        one.join(timeout=60)
        assert one.exitcode == 0
    total = int(expected(files).sum())
    assert results == [(0, total, True), (5, total, True)]
    assert len(entries(tmp_path)) == 1


def test_the_entries_not_used_for_longest_go_first(files, tmp_path, monkeypatch):
    one_entry = 5 * SIDE * SIDE + 400  # bytes, with the header and about.json
    monkeypatch.setenv("RADTAG_CACHE_GB", str(2.5 * one_entry / 1e9))
    for age, chosen in ((300, files), (200, files[::-1])):
        open_cache(chosen, SIDE, "stretch", root=tmp_path)
        newest = max(entries(tmp_path), key=lambda one: one.stat().st_mtime)
        os.utime(newest, (time.time() - age, time.time() - age))
    oldest = min(entries(tmp_path), key=lambda one: one.stat().st_mtime)
    second = max(entries(tmp_path), key=lambda one: one.stat().st_mtime)
    open_cache(files, SIDE, "stretch", root=tmp_path)  # used again: the second is now the oldest
    open_cache(files[1:] + files[:1], SIDE, "stretch", root=tmp_path)
    left = entries(tmp_path)
    assert len(left) == 2
    assert oldest in left
    assert second not in left


def test_the_bound_spares_what_this_process_has_in_use(files, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("RADTAG_CACHE_GB", "0")
    train = open_cache(files, SIDE, "stretch", root=tmp_path)
    kept = train.kept
    del train
    val = open_cache(files[::-1], SIDE, "stretch", root=tmp_path)
    assert len(entries(tmp_path)) == 2  # or the next start would decode both again
    assert "over the bound of 0: nothing else is kept" in capfd.readouterr().err
    np.testing.assert_array_equal(kept[:], expected(files))
    del kept, val
    open_cache(files[1:], SIDE, "stretch", root=tmp_path)
    assert len(entries(tmp_path)) == 1


def test_the_bound_spares_the_entry_asked_for_and_one_being_written(files, tmp_path, monkeypatch):
    monkeypatch.setenv("RADTAG_CACHE_GB", "0")
    fresh, stale = tmp_path / "pixels" / "a.1.tmp", tmp_path / "pixels" / "b.2.tmp"
    for folder in (fresh, stale):
        folder.mkdir(parents=True)
        (folder / "pixels.npy").write_bytes(b"half")
    os.utime(stale, (time.time() - 2 * 86_400,) * 2)
    np.testing.assert_array_equal(open_cache(files, SIDE, "stretch", root=tmp_path).pixels, expected(files))
    assert fresh.is_dir()
    assert not stale.exists()


def test_the_folder_can_be_set(files, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("RADTAG_CACHE", str(tmp_path / "elsewhere"))
    assert cache.folder() == tmp_path / "elsewhere"
    open_cache(files, SIDE, "stretch")
    assert len(entries(tmp_path / "elsewhere")) == 1
    assert capfd.readouterr().out == ""  # progress is not for stdout


def test_images_that_can_be_read_are_looked_up_and_not_copied(tmp_path):
    shape = (600, 256, 256)
    pixels = np.lib.format.open_memmap(tmp_path / "pixels.npy", mode="w+", dtype=np.uint8, shape=shape)
    pixels[4], pixels[599] = 40, 59
    readable = np.ones(600, dtype=bool)
    readable[[0, 3]] = False
    cache = PixelCache(pixels, readable, (("a.png", "broken"), ("b.png", "broken")))
    tracemalloc.start()
    try:
        kept = cache.kept
        picked = kept[np.array([597, 2, 2])]
        assert tracemalloc.get_traced_memory()[1] < 1_000_000  # of 39 MB
    finally:
        tracemalloc.stop()
    assert len(kept) == 598
    assert picked.shape == (3, 256, 256)
    assert picked[:, 0, 0].tolist() == [59, 40, 40]
    assert kept[:3][:, 5, 5].tolist() == [0, 0, 40]


# Confined to the lungs ------------------------------------------------------------------------------------------------


class Lungs:
    """Finds one lung, at another place in each image and in one in none; ``asked`` counts how often."""

    def __init__(self, name: str = "lungs (0123)") -> None:
        self.name, self.digest, self.asked = name, name, 0

    def __call__(self, image: Image) -> np.ndarray:
        self.asked += 1
        number = int(Path(image.source).stem)
        mask = np.zeros(image.size_rc, bool)
        if number != 2:
            mask[5 + number : 30, 10 : 30 + 2 * number] = True
        return mask


def confined(paths: list[Path], root: Path, lungs: Lungs | None = None) -> PixelCache:
    return open_cache(paths, SIDE, "letterbox", find_lungs=lungs or Lungs(), root=root)


def test_of_images_the_lungs_alone_are_kept_with_the_way_back(files, tmp_path):
    files[3].write_bytes(b"no image")
    lungs = Lungs()
    for _ in range(2):  # decoded, then from the entry
        found = confined(files, tmp_path, lungs)
        assert found.frames is not None
        for at in (0, 1, 2, 4):
            image = read(files[at])
            field = lung_field(image, Lungs())  # None of the one without lungs
            square, frame = prepare(image, SIDE, "letterbox", None if field is None else field.seen)
            np.testing.assert_array_equal(found.pixels[at], square)
            assert found.frames[at] == frame
        assert len({found.frames[at] for at in (0, 1, 2, 4)}) == 4
        assert found.kept.frames == [found.frames[at] for at in (0, 1, 2, 4)]
        assert found.kept.only(np.array([3, 1])).frames == [found.frames[4], found.frames[1]]
    assert lungs.asked == 4


def test_whole_images_have_an_entry_and_a_way_back_of_their_own(files, tmp_path):
    confined(files, tmp_path)
    whole = open_cache(files, SIDE, "letterbox", root=tmp_path)
    np.testing.assert_array_equal(whole.pixels, expected(files, "letterbox"))
    assert whole.frames is None
    assert whole.kept.frames is None
    assert len(entries(tmp_path)) == 2
    other = Lungs("lungs (4567)")
    confined(files, tmp_path, other)
    assert other.asked == 5
    assert len(entries(tmp_path)) == 3


def test_a_damaged_way_back_is_made_again(files, tmp_path):
    files[3].write_bytes(b"no image")
    whole = confined(files, tmp_path).frames
    (entry,) = entries(tmp_path)
    content = (entry / "about.json").read_bytes()
    first = content.index(b'"frames"')
    for at in range(first, len(content), 7):
        (entry / "about.json").write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert confined(files, tmp_path).frames == whole, f"byte {at}"


def test_an_image_that_is_read_the_next_time_has_its_way_back(files, tmp_path, monkeypatch):
    refused = [files[1]]

    def reading(path: Path):
        if path in refused:
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(cache, "read", reading)
    first = confined(files, tmp_path)
    assert first.readable.tolist() == [True, False, True, True, True]
    refused.clear()
    second = confined(files, tmp_path)
    assert second.readable.all()
    assert second.frames == confined(files, tmp_path / "anew").frames


def test_nothing_readable_is_an_error_with_lungs_too(tmp_path):
    broken = tmp_path / "0.png"
    broken.write_bytes(b"no image")
    with pytest.raises(BadData, match=rf"^none of 1 images could be read; the first: {broken}: "):
        confined([broken], tmp_path)
