"""The documentation as a site: it builds without a warning and without a network, and nothing in it leads nowhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from functools import cache
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import griffe
import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


class Reader(HTMLParser):
    """What a built page links to, loads, and can be linked to by."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.navigation: list[str] = []
        self.ids: set[str] = set()
        self._navs: list[bool] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        if tag == "nav":
            self._navs.append("md-nav--primary" in values.get("class", "") or any(self._navs))
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
            if any(self._navs):
                self.navigation.append(values["href"])
        elif tag == "link" and values.get("rel") not in ("canonical", "prev", "next"):
            self.loaded.append(values["href"])
        elif "src" in values:
            self.loaded.append(values["src"])

    def handle_endtag(self, tag: str) -> None:
        if tag == "nav":
            self._navs.pop()


@pytest.fixture(scope="module")
def written() -> list[Path]:
    """Every page, as it is named in docs/."""
    return [*sorted(DOCS.rglob("*.md")), DOCS / "readme.md"]


@pytest.fixture(scope="module")
def site(written: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs-site` builds it; a warning ends the build."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Reader]:
    return {page: Reader(page.read_text(encoding="utf-8")) for page in sorted(site.rglob("*.html"))}


def built(site: Path, page: Path) -> Path:
    return site / page.relative_to(DOCS).with_suffix(".html")


def shown(page: Path) -> str:
    """What a page says, without the site around it and without code."""
    found = re.search(r"<article.*?</article>", page.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None, page
    return re.sub(r"<(pre|code)\b.*?</\1>", "", found[0], flags=re.DOTALL)


def test_every_page_is_in_the_navigation(site: Path, written: list[Path], pages: dict[Path, Reader]):
    listed = {(site / link).resolve() for link in pages[site / "index.html"].navigation}
    assert {built(site, page) for page in written} - listed == set()


def test_every_link_leads_somewhere(site: Path, pages: dict[Path, Reader]):
    lost = []
    for page, reader in pages.items():
        for link in [*reader.links, *reader.loaded]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or page.name == "404.html":
                continue
            there = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            there = there / "index.html" if there.is_dir() else there
            anchor = unquote(parts.fragment)
            if not there.is_file() or (anchor and there.suffix == ".html" and anchor not in pages[there].ids):
                lost.append(f"{page.relative_to(site)} -> {link}")
    assert lost == []


def test_nothing_is_fetched_from_elsewhere(site: Path, pages: dict[Path, Reader]):
    for page, reader in pages.items():
        assert [one for one in reader.loaded if urlsplit(one).netloc] == [], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"""(@import|url\()\s*["']?(https?:)?//""", sheet.read_text(encoding="utf-8")), sheet


def test_formulas_are_drawn_by_the_browser(site: Path):
    source = (DOCS / "formulas.md").read_text(encoding="utf-8")
    blocks, inline = re.findall(r"\$\$.*?\$\$", source), re.findall(r"(?<!\$)\$[^$\n]+\$(?!\$)", source)
    assert len(blocks) > 5
    text = shown(built(site, DOCS / "formulas.md"))
    assert len(re.findall(r'<math [^>]*display="block"', text)) == len(blocks)
    assert len(re.findall(r'<math [^>]*display="inline"', text)) == len(inline)
    assert "arithmatex" not in text
    assert "<mfrac>" in text
    assert r"\frac" not in text


def test_what_a_page_links_to_outside_docs_is_shown(site: Path):
    page = (site / "source" / "src" / "radtag" / "geometry.py.html").read_text(encoding="utf-8")
    assert "def to_original" in unescape(re.sub(r"<[^>]+>", "", page))
    assert 'href="../source/src/radtag/models/pylon.py.html"' in (site / "methods" / "pylon.html").read_text("utf-8")


def test_the_reference_holds_docstrings(site: Path):
    assert 'id="radtag.tag.Tagger.tag"' in (site / "reference" / "tag.html").read_text(encoding="utf-8")
    metrics = (site / "reference" / "metrics.html").read_text(encoding="utf-8")
    assert 'id="radtag.metrics.masks.overlap"' in metrics
    assert re.search(r'<a [^>]*href="#radtag.metrics.masks.poi_at_matched_area"[^>]*><code>', metrics)


def test_markdown_reads_as_it_does_in_a_repository(site: Path, written: list[Path]):
    for page in written:
        text = shown(built(site, page))
        for odd in (r"\n *(?:-|\d+\.) \S", r"\n\|[ -]", r"`", r"\n#+ ", r":\w+:`", r"\*\*"):
            met = re.search(odd, text)
            assert met is None, f"{page.relative_to(DOCS)}: {text[max(0, met.start() - 80) : met.end() + 80]}"
    assert "\\|" not in (site / "cli.html").read_text(encoding="utf-8")


# ---- docstrings ------------------------------------------------------------------------------------------------------


@cache
def docstrings() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_docstrings", DOCS / "site_docstrings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_table_goes_on_under_its_first_column():
    text = "before\n\n====  ======\na     b\n====  ======\none   first\n      second\ntwo   third\n====  ======\nafter"
    expected = "before\n\n\n| a | b |\n| --- | --- |\n| one | first second |\n| two | third |\n\nafter"
    assert docstrings().tables(text) == expected


def test_a_list_under_a_line_is_a_list():
    assert docstrings().lists("why:\n- one\n  more\n- two\n\n- three") == "why:\n\n- one\n  more\n- two\n\n- three"


def test_roles_name_what_they_mean():
    package = griffe.load("radtag", search_paths=[ROOT / "src"], submodules=False)
    assert docstrings().reference("load", package, short=False) == link("radtag.tag.load", "load")
    errors = griffe.load("radtag.errors", search_paths=[ROOT / "src"])
    assert docstrings().reference("BadData", errors, short=False) == link("radtag.errors.BadData", "BadData")
    assert docstrings().reference("radtag.errors.BadData", errors, short=True) == link(
        "radtag.errors.BadData", "BadData"
    )
    assert docstrings().reference("scipy.stats.bootstrap", package, short=False) == link("scipy.stats.bootstrap")


def link(path: str, shown: str | None = None) -> str:
    return f'<autoref optional identifier="{path}"><code>{shown or path}</code></autoref>'
