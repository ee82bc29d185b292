"""The documentation is executed: its commands and examples run, small, and what is written from the code is current."""

from __future__ import annotations

import csv
import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest

from radtag.cli import main

DOCS = Path(__file__).resolve().parents[1] / "docs"
README = DOCS.parent / "README.md"
PAGES = sorted([README, *DOCS.rglob("*.md")])

# The README's sizes are for a reader; these are for a test.
SMALLER = {"--count": "80", "--epochs": "1", "--side": "64", "--size": "64"}


def load_writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_pages", DOCS / "write_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands(page: Path) -> list[list[str]]:
    """The commands of a page's console blocks, as words, without `radtag`."""
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    return [shlex.split(line)[1:] for line in lines if line.startswith("$ radtag"[2:])]


def examples(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the README's commands were given, in order."""
    folder = tmp_path_factory.mktemp("walk")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("RADTAG_CACHE", str(folder / "cache"))
        given = commands(README)
        assert len(given) >= 5
        for words in given:
            smaller = [SMALLER.get(before, word) for before, word in zip(["", *words], words, strict=False)]
            with pytest.raises(SystemExit) as end:
                main(smaller)
            assert not end.value.code, words
    return folder


def test_a_result_is_replaced_only_if_asked(
    walked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(walked)
    monkeypatch.setenv("RADTAG_CACHE", str(walked / "cache"))
    again = ["evaluate", "runs/pylon", "csv:phantoms", "--out", "evaluation/pylon"]

    def status(*words: str) -> int:
        with pytest.raises(SystemExit) as end:
            main([*again, *words])
        return int(end.value.code or 0)

    before = (walked / "evaluation/pylon/metrics.json").read_bytes()
    assert status("--mask", "0.5") == 1
    refused = capsys.readouterr().err
    assert "evaluation/pylon holds a result made otherwise: tagging.mask.nodule was 0." in refused
    assert refused.endswith("Give another --out, or replace it with --overwrite.\n")
    assert (walked / "evaluation/pylon/metrics.json").read_bytes() == before
    assert status("--overwrite", "--bootstraps", "0") == 0
    assert status("--overwrite") == 0


def test_the_commands_of_the_readme_do_what_it_says(walked: Path):
    for made in (
        *("phantoms/table.csv", "runs/pylon/weights.safetensors", "runs/pylon/card.md", "tags/tags.csv"),
        *("tags/manifest.json", "evaluation/pylon/metrics.json", "evaluation/pylon/report.html"),
    ):
        assert (walked / made).is_file(), made


@pytest.mark.parametrize("page", [README, DOCS / "python.md", DOCS / "explaining.md"], ids=lambda page: page.name)
def test_python_examples_run(page: Path, walked: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(walked)
    monkeypatch.setenv("RADTAG_CACHE", str(walked / "cache"))
    names: dict[str, object] = {}
    found = examples(page)
    assert found
    for number, text in enumerate(found):
        exec(compile(text, f"{page.name}, example {number + 1}", "exec"), names)


def test_the_tutorial_runs_from_images_to_a_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RADTAG_CACHE", str(tmp_path / "cache"))
    names: dict[str, object] = {}
    text = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    assert "phantom:500?side=96" in text
    blocks = re.findall(
        r"```(python|console)\n(.*?)```", text.replace("phantom:500?side=96", "phantom:80?side=64"), re.DOTALL
    )
    for number, (kind, block) in enumerate(blocks):
        if kind == "python":
            exec(compile(block, f"tutorial.md, block {number + 1}", "exec"), names)
            continue
        words = shlex.split(block.splitlines()[0].removeprefix("$ radtag "))
        with pytest.raises(SystemExit) as end:
            main([SMALLER.get(before, word) for before, word in zip(["", *words], words, strict=False)])
        assert not end.value.code, block
    for made in ("tags/tags.csv", "evaluation/first/report.html", "proposed/check.html", "runs/student/card.md"):
        assert (tmp_path / made).is_file(), made
    rows = list(csv.DictReader((tmp_path / "verdicts.csv").open(newline="")))
    proposed = {row["image"]: row for row in csv.DictReader((tmp_path / "proposed/table.csv").open(newline=""))}
    assert rows
    assert all(proposed[row["image"]][f"mask:{row['finding']}"] == "" for row in rows)


def test_the_example_of_a_source_of_ones_own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    found = examples(DOCS / "data" / "adding.md")
    assert len(found) == 3
    for number, text in enumerate(found):
        exec(compile(text, f"adding.md, example {number + 1}", "exec"), names)


def test_written_pages_are_current():
    for path, text in load_writer().pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is out of date: run `make docs` and commit it"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS.parent)))
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?://|mailto:", target):
            continue
        file, _, anchor = target.partition("#")
        reached = (page.parent / file).resolve() if file else page
        assert reached.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", reached.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings]
            assert anchor in slugs, f"{page.name} links to {target}"


def test_code_in_a_list_is_fenced():
    """What a repository shows as code where it is only indented, the site runs together as text."""
    for page in PAGES:
        met = re.search(r"^(?:\d+\.|[-*]) .*\n(?: +.*\n)*\n {5,}\S.*", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert met is None, f"{page.relative_to(DOCS.parent)}: {met[0]}"


def test_every_page_is_reached_from_the_index():
    reached, waiting = set(), [DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or not page.is_file():
            continue
        reached.add(page)
        links = re.findall(r"\]\(([^)\s#]+\.md)", page.read_text(encoding="utf-8"))
        waiting += [(page.parent / link).resolve() for link in links]
    assert set(DOCS.rglob("*.md")) - reached == set()
