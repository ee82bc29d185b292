"""Docstrings for the site: what Sphinx writes otherwise than Markdown is turned into Markdown.

:func:`~radtag.tag.load`    a link to the function, where a page shows it; else its name as code
``code``                    `code`
====  ====                  a table
a list under a line         a list
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Alias, Extension, GriffeLoader, Module, ModulesCollection, Object

ROLE = re.compile(r":\w+:`(~?)\.?([\w.]+)`")
ITEM = re.compile(r"^ *(?:-|\d+\.) ")
RULE = re.compile(r"^( *)=+(?: +=+)+ *$")


class Docstrings(Extension):
    """Rewrites every docstring of a package, once all of it is known."""

    def on_package(self, *, pkg: Module, loader: GriffeLoader, **kwargs: Any) -> None:
        """Goes through all modules, classes and functions."""
        waiting: list[Object | Alias] = [pkg]
        while waiting:
            one = waiting.pop()
            waiting += [member for member in one.members.values() if not member.is_alias]
            if one.docstring is not None:
                one.docstring.value = markdown(one.docstring.value, one)


def markdown(text: str, of: Object | Alias) -> str:
    """A docstring as Markdown."""
    text = ROLE.sub(lambda role: reference(role[2], of, short=bool(role[1])), text)
    return lists(tables(text)).replace("``", "`")


def reference(name: str, of: Object | Alias, *, short: bool) -> str:
    """A link that is left out where no page shows what it names."""
    home = of.module.path
    package = home if of.module.is_init_module else home.rpartition(".")[0]
    tried = (f"{of.path}.{name}", *([f"{of.parent.path}.{name}"] if of.parent else []), f"{home}.{name}")
    found = (home_of(one, of.modules_collection) for one in (*tried, f"{package}.{name}", name))
    path = next(filter(None, found), name)
    shown = name.rpartition(".")[2] if short else name
    return f'<autoref optional identifier="{path}"><code>{shown}</code></autoref>'


def home_of(path: str, known: ModulesCollection) -> str | None:
    """Where what has this path is written, if the package has it."""
    try:
        found = known[path]
    except KeyError:
        return None
    return found.target_path if found.is_alias else path


def tables(text: str) -> str:
    """reStructuredText's simple tables, between rules of equals signs, as Markdown's."""
    lines, out = text.splitlines(), []
    while lines:
        line = lines.pop(0)
        rule = RULE.match(line)
        if rule is None:
            out.append(line)
            continue
        starts = [found.start() for found in re.finditer("=+", line)]
        parts: list[list[list[str]]] = [[]]
        while lines:
            row = lines.pop(0)
            if RULE.match(row):
                parts.append([])
                if len(parts) == 3:
                    break
                continue
            ends = [*starts[1:], len(row) + 1]
            cells = [row[start:end].strip() for start, end in zip(starts, ends, strict=True)]
            if cells[0] or not parts[-1]:
                parts[-1].append(cells)
            else:  # a row that goes on
                parts[-1][-1] = [" ".join(filter(None, pair)) for pair in zip(parts[-1][-1], cells, strict=True)]
        head, *body = [*parts[0], *parts[1]]
        out += ["", *(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *body)), ""]
    return "\n".join(out)


def lists(text: str) -> str:
    """A blank line before each list that follows a line of text: without it Markdown for Python sees no list."""
    out: list[str] = []
    plain = False  # whether the lines since the last blank one are text
    for line in text.splitlines():
        if ITEM.match(line):
            out += [""] if plain else []
            plain = False
        elif not line.strip():
            plain = False
        elif not out or not out[-1].strip():
            plain = True
        out.append(line)
    return "\n".join(out)
