"""Folders written whole or not at all."""

from __future__ import annotations

import pytest

from radtag.data.files import new_folder


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
