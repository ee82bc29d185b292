"""Folders written whole or not at all, and by one process at a time."""

from __future__ import annotations

import threading
import time

import pytest

from radtag.data.files import held, new_folder


@pytest.mark.parametrize("there", [False, True])
def test_a_new_folder_appears_when_it_is_whole(tmp_path, there):
    out = tmp_path / "deep" / "out"
    if there:
        out.mkdir(parents=True)
    with new_folder(out) as folder:
        (folder / "a").write_text("1")
        assert not (out / "a").exists()
    assert [file.name for file in out.iterdir()] == ["a"]
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_folder_that_fails_leaves_nothing(tmp_path):
    out = tmp_path / "out"
    (tmp_path / "before").mkdir()

    def interrupted() -> None:
        with new_folder(out) as folder:
            (folder / "a").write_text("1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.name for path in tmp_path.iterdir()] == ["before"]


def test_what_is_held_is_held_by_one_and_free_afterwards(tmp_path):
    lock = tmp_path / "deep" / ".lock"
    with held(lock, OSError("first")), pytest.raises(OSError, match=r"^second$"), held(lock, OSError("second")):
        pytest.fail("held twice")
    with pytest.raises(KeyError), held(lock, OSError("third")):
        raise KeyError
    with held(lock, OSError("fourth")):
        pass


def test_who_waits_comes_after_who_holds(tmp_path):
    lock, order = tmp_path / ".lock", []

    def second() -> None:
        with held(lock, OSError(), wait=True):
            order.append("second")

    waiting = threading.Thread(target=second)
    with held(lock, OSError()):
        waiting.start()
        time.sleep(0.2)
        order.append("first")
    waiting.join(timeout=30)
    assert order == ["first", "second"]
