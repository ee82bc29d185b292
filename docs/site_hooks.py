"""What the site (`make docs-site`) does beyond MkDocs: links out of docs/ lead somewhere, and formulas need no network.

- README.md is a page of the site, `readme.md`.
- A link from a page to a file of the repository, such as ../src/radtag/maps.py, leads to a page that shows this file,
  under source/. A folder's page lists its files. Such pages stand in no navigation and are not searched.
- TeX between dollar signs, which repository pages show as formulas, becomes MathML when the site is built. Browsers
  draw it themselves: no script and no font is needed.
"""

from __future__ import annotations

import html
import os
import posixpath
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
README = "readme.md"
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
BAR = re.compile(r"<td[^>]*><code>[^<]*</code>")
LANGUAGES = {".py": "python", ".sh": "bash", ".toml": "toml", ".j2": "jinja", ".css": "css", ".yml": "yaml"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds README.md, and a page for everything outside docs/ that a page links to."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    # Seen from docs/, as every other page.
    seen_from_docs = LINK.sub(lambda link: os.path.relpath(ROOT / link[1], DOCS) + (link[2] or ""), readme)
    files.append(File.generated(config, README, content=seen_from_docs))
    wanted = [
        target
        for file in files.documentation_pages()
        for link in LINK.finditer(file.content_string)
        if (target := outside(file.src_uri, link[1])) is not None
    ]
    done = {Path("README.md")}
    while wanted:
        target = wanted.pop()
        if target in done:
            continue
        done.add(target)
        parts = parts_of(target) if (ROOT / target).is_dir() else []
        wanted += parts
        text = folder_page(target, parts) if parts else file_page(target)
        files.append(File.generated(config, source_page(target), content=text, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links out of docs/ into links to their pages."""
    here = page.file.src_uri

    def turned(link: re.Match[str]) -> str:
        target = outside(here, link[1])
        if target is None:
            return link[0]
        there = README if target == Path("README.md") else source_page(target)
        return posixpath.relpath(there, posixpath.dirname(here)) + (link[2] or "")

    return LINK.sub(turned, markdown) if not here.startswith("source/") else markdown


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns formulas into MathML, and takes from code in tables what keeps a bar from parting cells."""
    return BAR.sub(lambda code: code[0].replace("\\|", "|"), FORMULA.sub(mathml, html))


def mathml(formula: re.Match[str]) -> str:
    """A formula that browsers draw by themselves."""
    return convert(html.unescape(formula[2]).strip(), display="block" if formula[1] == "div" else "inline")


def outside(page: str, link: str) -> Path | None:
    """What a page's link leads to, from the repository's root, if it is there and not within docs/."""
    target = Path(os.path.normpath(DOCS / posixpath.dirname(page) / link))
    if target.is_relative_to(DOCS) or not target.is_relative_to(ROOT) or not target.exists():
        return None
    return target.relative_to(ROOT)


def source_page(target: Path) -> str:
    """The page of a file or folder."""
    return f"source/{target.as_posix()}.md"


def parts_of(folder: Path) -> list[Path]:
    """The files of a folder, from the repository's root."""
    found = (file.relative_to(ROOT) for file in (ROOT / folder).rglob("*") if file.is_file())
    return sorted(file for file in found if file.suffix != ".pyc")


def folder_page(folder: Path, parts: list[Path]) -> str:
    """A list of files."""
    lines = [f"- [`{part.relative_to(folder)}`]({posixpath.relpath(part, folder.parent)}.md)" for part in parts]
    return page_of(folder, "\n".join(lines))


def file_page(file: Path) -> str:
    """A file as it stands."""
    text = (ROOT / file).read_text(encoding="utf-8").rstrip()
    fence = "`" * (max(map(len, re.findall(r"`{3,}", text)), default=2) + 1)
    return page_of(file, f"{fence}{LANGUAGES.get(file.suffix, 'text')}\n{text}\n{fence}")


def page_of(what: Path, text: str) -> str:
    """A page that the search leaves out."""
    return f"---\nsearch:\n  exclude: true\n---\n\n# `{what.as_posix()}`\n\n{text}\n"
