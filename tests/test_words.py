"""Messages count and compare in plain words."""

import pytest

from radtag.words import changes, counted


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 images are left out"), (1, "1 image is left out"), (2, "2 images are left out")],
)
def test_one_is_not_several(count: int, said: str):
    assert counted(count, "image[s] [is|are] left out") == said


def test_large_counts_have_commas_where_wanted():
    assert counted(1234, "patient[s]", ",") == "1,234 patients"


def test_what_differs_is_named():
    was = {"epochs": 4, "augment": {"flip_p": 0.5, "area": [0.7, 1.0]}, "same": 1, "stored_px": None}
    now = {"epochs": 5, "augment": {"flip_p": 0.5, "area": [0.6, 1.0]}, "same": 1, "stored_px": 512}
    assert changes(was, was) == ""
    assert changes(was, now) == (
        "epochs was 4, now 5; augment.area was 0.7, 1.0, now 0.6, 1.0; stored_px was not given, now 512"
    )


def test_at_most_five_are_named():
    was, now = ({str(i): i + more for i in range(8)} for more in (0, 1))
    assert changes(was, now).startswith("0 was 0, now 1; ")
    assert changes(was, now).endswith("4 was 4, now 5; and 3 more")
