"""Writes what the documentation takes from the code: `make docs`. A test checks that it is current.

docs/cli.md is from the command line, docs/dicom.md from the readers' docstrings, the lists in docs/metrics.md and
docs/runs.md are from the definitions of the metrics and the settings of training.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import typer
from pydantic import BaseModel

from radtag.benchmark import plan
from radtag.cli import app
from radtag.data.augment import AugmentOptions
from radtag.images import dicom, files, nifti, window
from radtag.models.backbone import BackboneOptions
from radtag.models.deeplabv3plus import DeepLabV3PlusOptions
from radtag.models.fpn import FpnOptions
from radtag.models.guided import GuidedOptions
from radtag.models.li2018 import Li2018Options
from radtag.models.pan import PanOptions
from radtag.models.student import StudentOptions
from radtag.models.taggan import TagGanOptions
from radtag.models.unet import UnetOptions
from radtag.models.vagan import VaGanOptions
from radtag.report.definitions import DEFINITIONS, QUESTIONS
from radtag.train.settings import PRESETS, AdversarialSettings, Settings, StudentSettings, TrainSettings

DOCS = Path(__file__).parent
OPTIONS: dict[str, type[BaseModel]] = {
    "li2018": Li2018Options,
    "unet": UnetOptions,
    "fpn": FpnOptions,
    "deeplabv3plus": DeepLabV3PlusOptions,
    "pan": PanOptions,
    "taggan": TagGanOptions,
    "guided": GuidedOptions,
    "vagan": VaGanOptions,
}
CLI_HEAD = """# The command line

<!-- Written by docs/write_pages.py (make docs). Change the help texts in src/radtag/cli.py instead. -->

Results go to standard output; progress, notes and errors go to standard error. Exit status: 0 done, 1 refused or
incomplete (the message says what is wrong and what to do), 2 wrong usage. With `RADTAG_DEBUG=1` an error shows its
traceback. `python -m radtag` is the same as `radtag`.
"""


def pages() -> dict[Path, str]:
    """Every page that is written, or has a part that is, with its text."""
    return {
        DOCS / "cli.md": cli_page(),
        DOCS / "benchmark.md": between(DOCS / "benchmark.md", "keys", benchmark_list()),
        DOCS / "dicom.md": reading_page(),
        DOCS / "metrics.md": between(DOCS / "metrics.md", "metrics", metrics_list()),
        DOCS / "runs.md": between(
            DOCS / "runs.md",
            "settings of a game",
            game_settings_list(),
            between(DOCS / "runs.md", "settings", settings_list()),
        ),
        **{DOCS / "methods" / f"{name}.md": method_page(name, options) for name, options in OPTIONS.items()},
        DOCS / "methods" / "student.md": student_page(),
    }


def between(page: Path, name: str, text: str, old: str | None = None) -> str:
    """The page, or what has become of it, with the text between its two marks."""
    old = page.read_text(encoding="utf-8") if old is None else old
    begin, end = f"<!-- {name}:begin (written by docs/write_pages.py) -->", f"<!-- {name}:end -->"
    if begin not in old or end not in old:
        raise ValueError(f"{page} lacks {begin} ... {end}")
    return f"{old.split(begin)[0]}{begin}\n\n{text}\n{end}{old.split(end)[1]}"


# ---- docs/metrics.md ------------------------------------------------------------------------------------------------


def metrics_list() -> str:
    """The metrics, by the question they answer."""
    parts = []
    for group, (question, what) in QUESTIONS.items():
        rows = [f"| `{one.key}` | {cell(one.sentence)} | {one.better} |" for one in DEFINITIONS if one.group == group]
        parts.append(
            "\n".join([f"## {question}", "", what, "", "| key | what it is | better |", "|---|---|---|", *rows, ""])
        )
    return "\n".join(parts)


# ---- docs/runs.md ---------------------------------------------------------------------------------------------------


def settings_list() -> str:
    """The settings of training, with the presets side by side."""
    head = ["| setting | what it is | `paper` | `small` |", "|---|---|---|---|"]
    rows = settings_rows(TrainSettings, "", PRESETS["small"])
    backbone = settings_rows(BackboneOptions, "backbone.", PRESETS["small"].get("backbone", {}))
    augment = settings_rows(AugmentOptions, "augment.", PRESETS["small"].get("augment", {}))
    return "\n".join([*head, *rows, *backbone, *augment, ""])


def game_settings_list() -> str:
    """The settings of training with two sides."""
    return own_table(AdversarialSettings, TrainSettings)


def method_page(name: str, options: type[BaseModel]) -> str:
    """A method's page, with its own settings."""
    inherited = options.__bases__[0]
    table = own_table(options, inherited if inherited in OPTIONS.values() else None)
    return between(DOCS / "methods" / f"{name}.md", "options", table)


def student_page() -> str:
    """The student's page, with the settings of its loop and its own."""
    page = method_page("student", StudentOptions)
    return between(DOCS / "methods" / "student.md", "settings", own_table(StudentSettings, Settings), page)


def own_table(model: type[BaseModel], other: type[BaseModel] | None) -> str:
    """A row per setting that another class does not have, or has with another default."""
    texts = attributes(model)
    rows = ["| setting | what it is | default |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            continue
        theirs = other.model_fields.get(name) if other is not None else None
        if theirs is None or (theirs.get_default(call_default_factory=True), theirs.description) != (default, None):
            rows.append(f"| `{name}` | {cell(texts[name])} | {value(default)} |")
    return "\n".join([*rows, ""])


def settings_rows(model: type[BaseModel], prefix: str, small: dict[str, Any]) -> list[str]:
    """A row per setting that is not a group of its own."""
    texts = attributes(model)
    rows = []
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            continue
        other = small.get(name, default)
        shown = "" if other == default else value(other)
        rows.append(f"| `{prefix}{name}` | {cell(texts[name])} | {value(default)} | {shown} |")
    return rows


def attributes(model: type[BaseModel]) -> dict[str, str]:
    """What the docstring's Attributes say, by name."""
    texts: dict[str, str] = {}
    for base in model.__bases__:  # what it shares with others is told there
        if issubclass(base, BaseModel) and base.model_fields:
            texts |= attributes(base)
    section = inspect.cleandoc(model.__doc__ or "").split("Attributes:\n")[1]
    names: list[str] = []
    for line in section.splitlines():
        entry = re.match(r"    (\w+(?:, \w+)*): (.*)", line)
        if entry:
            names = entry[1].split(", ")
            texts |= dict.fromkeys(names, entry[2])
        elif line.strip():
            texts |= {name: f"{texts[name]} {line.strip()}" for name in names}
    return texts


def value(what: Any) -> str:
    """A setting's value as --set takes it."""
    if what is None or what == {}:
        return ""
    if isinstance(what, tuple):
        return f"`[{', '.join(f'{part:.4g}' for part in what)}]`"
    return f"`{what}`"


# ---- docs/benchmark.md ----------------------------------------------------------------------------------------------


def benchmark_list() -> str:
    """The keys of a benchmark's file, table by table."""
    tables = {
        "At the top": plan.File,
        "`[[source]]`": plan.Source,
        "`[[method]]`": plan.Method,
        '`[[prepare]]` with `act = "plant"`': plan.Plant,
        '`[[prepare]]` with `act = "train"`': plan.Train,
        '`[[prepare]]` with `act = "tag"`': plan.Propose,
    }
    parts = []
    for title, model in tables.items():
        texts = attributes(model)
        rows = [f"### {title}", "", "| key | what it is | default |", "|---|---|---|"]
        own = {name: name in model.__annotations__ for name in model.model_fields}
        for name in sorted(own, key=lambda name: not own[name]):  # what it shares with other tables stands last
            field = model.model_fields[name]
            default = field.get_default(call_default_factory=True)
            shown = "required" if field.is_required() else toml(default)
            rows.append(f"| `{name}` | {cell(texts[name])} | {shown} |")
        parts.append("\n".join([*rows, ""]))
    return "\n".join(parts)


def toml(default: Any) -> str:
    """A default as the file would have it; nothing where that is nothing."""
    return "" if default in (None, (), {}) else f"`{json.dumps(default)}`"


# ---- docs/dicom.md --------------------------------------------------------------------------------------------------

READING_HEAD = """# How files are read

<!-- Written by docs/write_pages.py (make docs) from the readers' docstrings. -->

The content decides what a file is, not its name. Pixels become 0-1; which window was taken and where the
spacing comes from is in `Image.meta`. A file that cannot be read is named with its cause and the next step, and the
others go on.
"""


def reading_page() -> str:
    """The rules of every reader."""
    titles = {dicom: "DICOM", window: "Windows", files: "PNG, JPEG, TIFF, BMP, PNM", nifti: "NIfTI"}
    parts = [f"## {title}\n\n{prose(module)}\n" for module, title in titles.items()]
    return "\n".join([READING_HEAD, *parts])


def prose(module: ModuleType) -> str:
    """A docstring as Markdown."""
    text = inspect.cleandoc(module.__doc__ or "")
    text = re.sub(r":\w+:`~?([\w.]+)`", r"`\1`", text)
    return text.replace("``", "`")


# ---- docs/cli.md ----------------------------------------------------------------------------------------------------


def cli_page() -> str:
    """Every command."""
    commands = list(leaves(typer.main.get_command(app), ("radtag",)))
    listed = "\n".join(f"- [`{' '.join(path)}`](#{'-'.join(path)}): {summary(command)}" for path, command in commands)
    return "\n".join([CLI_HEAD, listed, "", *(section(path, command) for path, command in commands)])


def leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that is no group, with the words it is called by."""
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, child in command.commands.items():
        yield from leaves(child, (*path, name))


def summary(command: Any) -> str:
    """The first sentence of a command's help."""
    return inspect.cleandoc(command.help).split("\n\n")[0].replace("\n", " ")


def section(path: tuple[str, ...], command: Any) -> str:
    """A command: what it does, how it is called, its arguments and options, an example."""
    *text, example = inspect.cleandoc(command.help).split("\n\n")
    if "Example: " not in example:
        raise ValueError(f"{' '.join(path)}: the help ends with an example")
    words = " ".join(path)
    context = typer.Context(command, info_name=path[-1])
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.params if param.param_type_name == "option" and not param.hidden]
    usage = " ".join([words, *(param.metavar or param.name.upper() for param in arguments), "[OPTIONS]"])
    rows = [f"| `{param.metavar or param.name.upper()}` | {cell(param.help)} | |" for param in arguments]
    rows += [f"| {flags(param, context)} | {cell(param.help)} | {default(param)} |" for param in options]
    table = "\n".join(["| | | default |", "|---|---|---|", *rows])
    call = " ".join(example.replace("\b", "").split()).removeprefix("Example: ")
    return "\n\n".join([f"## {words}", *text, f"```\n{usage}\n```", table, f"Example:\n\n```\n{call}\n```\n"])


def flags(param: Any, context: typer.Context) -> str:
    """How an option is written."""
    return f"`{param.get_help_record(context)[0]}`".replace("|", "\\|")


def default(param: Any) -> str:
    """What holds if an option is not given."""
    if param.required:
        return "required"
    if param.default is None or param.is_flag or param.default == ():
        return ""
    return f"`{param.default}`"


def cell(text: str | None) -> str:
    """Help, safe within a table."""
    return (text or "").replace("|", "\\|").replace("``", "`")


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
