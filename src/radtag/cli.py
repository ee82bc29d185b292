"""The command line: parse, call, print.

Nothing heavy is imported at the top, so that `radtag --help` answers at once: every command imports what it calls.
Results go to standard output; progress, notes and errors go to standard error.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import radtag
from radtag import process
from radtag.errors import BadSetting, RadtagError
from radtag.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console
    from rich.table import Table

app = typer.Typer(
    name="radtag",
    help="Finds where the disease is, from labels that only say that it is there. Research use, not a medical device.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
data_app = typer.Typer(help="Look at data sets, and make some with known truth.", no_args_is_help=True)
import_app = typer.Typer(help="Make runs from published weights.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(import_app, name="import")

# What several commands take.
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output instead of text.")]
Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        show_default=False,
        help="NAME:PATH, as in csv:table.csv, folder:images, nih14:ChestX-ray14, covid_qu_ex:Infection, phantom:1000.",
    ),
]
Splits = Annotated[
    Path | None,
    typer.Option(
        "--splits", metavar="FILE.csv", help="Splits to use instead of the source's own: columns image and split."
    ),
]
SplitSeed = Annotated[
    int, typer.Option("--split-seed", min=0, help="Draws splits where the source has none, by patient.")
]
Findings = Annotated[
    list[str] | None,
    typer.Option("--finding", metavar="NAME", help="Only this finding; repeat it for several. Default: all."),
]
WithRun = Annotated[
    list[Path] | None,
    typer.Option("--with", metavar="RUN", help="A further run to speak with one voice; repeat for several."),
]
ScoredSplits = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="SPLIT", help="Score this split; repeat it for several. Default: test."),
]
CountedInside = Annotated[
    Literal["image", "lungs"],
    typer.Option("--inside", help="Whose pixels count in what is marked and against outlines."),
]
SeenBefore = Annotated[
    Literal["refuse", "leave-out", "count"],
    typer.Option(
        "--seen", help="Images the run was trained on, or set its thresholds on: refuse, leave out, or count them."
    ),
]
MinArea = Annotated[
    float | None,
    typer.Option("--min-area", metavar="PX", help="Drop smaller parts of a mask. Default: 1/4000 of the image."),
]
LaidBy = Annotated[
    Literal["measured", "tiles"],
    typer.Option("--grid", help="Where cells lie: where they were measured to look, or, as published, their tiles."),
]
Mirrored = Annotated[Literal["none", "flip"], typer.Option("--tta", help="flip: average with the mirrored image.")]
MaskOver = Annotated[str, typer.Option("--mask", help="What a map must exceed: validated, otsu, or a value 0-1.")]
MaskArea = Annotated[
    Literal["image", "body", "lungs"],
    typer.Option(
        "--area", help="Where masks may lie: anywhere, on the body, or in lungs that are not dense; docs/maps.md."
    ),
]
Explain = Annotated[
    Literal[
        "cam", "gradcam", "gradcam++", "xgradcam", "hirescam", "layercam", "eigencam", "scorecam", "ablationcam",
        "occlusion", "rise", "integrated-gradients",
    ]
    | None,
    typer.Option("--explain", help="A classifier's maps are explanations by this method, not its own maps."),
]  # fmt: skip
ExplainLayer = Annotated[
    str | None,
    typer.Option("--explain-layer", metavar="NAME", help="The network's layer to explain by. Default: chosen."),
]
ExplainScale = Annotated[
    Literal["score", "image"],
    typer.Option("--explain-scale", help="score: absolute. image: each map of an explanation is stretched to 0-1."),
]
ByColumn = Annotated[
    list[str] | None,
    typer.Option(
        "--by",
        metavar="COLUMN",
        help="Numbers by group too: a column of the table, in bands as age:40,65, or size, the lesions'. Repeat it.",
    ),
]
Faithfulness = Annotated[
    int,
    typer.Option(
        "--faithfulness",
        metavar="IMAGES",
        min=0,
        help="Insertion and deletion too, in 32 steps, of so many images of each finding that have it.",
    ),
]
Bootstraps = Annotated[int, typer.Option("--bootstraps", min=0, help="Draws of patients for the intervals; 0: none.")]
BootstrapSeed = Annotated[int, typer.Option("--seed", min=0, help="Of these draws.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a result in --out that was made otherwise.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Images of a batch through the network.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps ...")]


_NEXT_STEPS = {
    FileExistsError: "A file is where a folder should be. Give another path.",
    NotADirectoryError: "A file is where a folder should be. Give another path.",
    IsADirectoryError: "A folder is where a file should be. Give another path.",
    FileNotFoundError: "Check the path.",
    PermissionError: "Give a path that you may read and write.",
}
"""What to do where the system refuses a file."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit status: 0 done, 1 refused or incomplete, 2 wrong usage."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name that the terminal cannot spell
    try:
        app(args=list(argv) if argv is not None else None, prog_name="radtag")
    except (RadtagError, OSError) as error:
        if os.environ.get("RADTAG_DEBUG"):
            raise
        if isinstance(error, OSError):
            what = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
            step = next((f". {step}" for kind, step in _NEXT_STEPS.items() if isinstance(error, kind)), "")
            print(f"Error: {what}{step}", file=sys.stderr)
        else:
            print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError" or os.environ.get("RADTAG_DEBUG"):  # torch is not imported here
            raise
        what = ". ".join(str(error).split(". ")[:2])  # that there is too little, and how much was wanted
        print(
            f"Error: {what}. Lower --batch-size or --size, or use --mixed-precision bf16.",
            file=sys.stderr,
        )
        sys.exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"radtag {radtag.__version__}")
        raise typer.Exit


@app.callback()
def radtag_(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Finds where the disease is, from labels that only say that it is there. Research use, not a medical device."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for data, runs, tags and the report.")] = Path("demo"),
    count: Annotated[int, typer.Option("--count", min=60, help="Phantoms to draw.")] = 1600,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Passes over the training phantoms.")] = 14,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the phantoms and of training.")] = 0,
    as_json: Json = False,
) -> None:
    """Show the whole chain on drawn radiographs.

    Trains CAM and PYLON on phantoms, tags others with both, evaluates and compares them, and writes one report.
    Takes a few minutes on two cores and needs no data, no weights and no internet. A second call goes on where the
    first one stopped.

    \b
    Example: radtag demo --out demo
    """
    process.keep_memory()
    from radtag import demo as act

    result = act.demo(out, count=count, epochs=epochs, seed=seed, console=_console())
    _print(result.to_dict(), as_json, result.table(), *result.lines())


@data_app.command("check")
def data_check(
    source: Source, splits: Splits = None, split_seed: SplitSeed = 0, finding: Findings = None, as_json: Json = False
) -> None:
    """Say what is in a data set, and what is wrong.

    Every image and mask is read. Errors (exit status 1) are what would make training or its numbers wrong:
    unreadable images, a patient or a picture in two splits, truth that does not fit. Warnings are what you should
    know.

    \b
    Example: radtag data check csv:chest/table.csv
    """
    from radtag.data.check import check

    report = check(source, splits=splits, seed=split_seed, findings=finding, console=_console())
    _print(report.to_dict(), as_json, *report.lines())
    if not report.ok:
        raise typer.Exit(1)


@data_app.command("phantom")
def data_phantom(
    out: Annotated[Path, typer.Option("--out", help="A new folder.", show_default=False)],
    count: Annotated[int, typer.Option("--count", min=1, help="How many.")] = 1000,
    side: Annotated[int, typer.Option("--side", help="Base side in pixels; sizes vary around it.")] = 256,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Which series of phantoms.")] = 0,
    as_json: Json = False,
) -> None:
    """Draw radiographs with exactly known lesions.

    Writes a csv data set with boxes and masks. The source phantom:N does the same into a cache. This command is for
    a copy to look at or to hand on.

    \b
    Example: radtag data phantom --out phantoms --count 200
    """
    from radtag.data.phantom import write

    table = write(out, count, seed=seed, side=side)
    _print({"table": table, "images": count}, as_json, f"{counted(count, 'phantom[s]')} -> {table}")


@data_app.command("plant")
def data_plant(
    source: Source,
    out: Annotated[Path, typer.Option("--out", help="A new folder.", show_default=False)],
    share: Annotated[float, typer.Option("--share", help="Share of the healthy images that get lesions.")] = 0.5,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            metavar="KIND",
            help="nodule, consolidation, effusion, pneumothorax, mass, atelectasis or cardiomegaly; repeat. "
            "Default: the first four.",
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--name", metavar="KIND=FINDING", help="Call a kind so in the table, FINDING+FINDING for several; repeat."
        ),
    ] = None,
    unsure: Annotated[
        list[str] | None,
        typer.Option(
            "--unsure", metavar="KIND=FINDING", help="A finding that is unknown where this kind is painted; repeat."
        ),
    ] = None,
    into: Annotated[
        Literal["healthy", "any"],
        typer.Option("--into", help="any: ill images too, which keep their labels, to train on beside the images."),
    ] = "healthy",
    look: Annotated[
        Literal["plain", "subtle"],
        typer.Option("--look", help="How easily lesions are seen: plain, or subtle, as many are in radiographs."),
    ] = "plain",
    normal: Annotated[
        str | None, typer.Option("--normal", metavar="FINDING", help="The finding that means healthy.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="SPLIT", help="Use this split's images alone, as train; repeat for several."),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Use at most so many healthy images.")] = None,
    times: Annotated[
        int, typer.Option("--times", min=1, help="Plant each training image up to so often, with other lesions.")
    ] = 1,
    lungs: Annotated[
        Path | None,
        typer.Option(
            "--lungs",
            metavar="RUN",
            help="Outlines the lungs where the source has no masks of them. Default: a simple estimate.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Which images, which lesions, where and how.")] = 0,
    as_json: Json = False,
) -> None:
    """Paint known lesions into healthy images.

    Writes a csv data set with boxes and masks. One hospital's look in healthy and ill alike, and exact truth: what
    a localiser finds there is the lesion. It has a column for each kind that is painted, and none for the other
    findings of the source, which are named.

    Lesions lie in the source's lung masks, or in lungs that a run outlines: any
    source with lung masks trains one, by `radtag train student SOURCE --finding
    lungs --out RUN`. The estimate that is made without is cautious, and misses
    the lungs' bases and edges in pale images.

    \b
    Example: radtag data plant folder:chest --out planted --share 0.5
    """
    from radtag.data.plant import DEFAULT_KINDS, plant
    from radtag.data.sources import load, open_source, without_missing

    find_lungs = None
    if lungs is not None:
        from radtag.data.table import LUNGS
        from radtag.train.outline import Outliner

        find_lungs = Outliner(lungs, LUNGS)
    dataset = open_source(source, only=only) if only else without_missing(load(source))[0]
    table = plant(
        dataset,
        out,
        share=share,
        kinds=kind or DEFAULT_KINDS,
        look=look,
        into=into,
        names=_findings_of(name or [], "--name"),
        unsure=_findings_of(unsure or [], "--unsure"),
        seed=seed,
        normal=normal,
        limit=limit,
        times=times,
        find_lungs=find_lungs,
    )
    about = json.loads((table.parent / "about.json").read_text(encoding="utf-8"))
    lines = [f"{counted(about['written'], 'image[s]')}, {about['planted']} of them with lesions -> {table}"]
    if about["dropped"]:
        lines.append(
            f"findings of {about['source']} that are not painted have no column: {', '.join(about['dropped'])}"
        )
    if about["left_out"]:
        lines.append(f"{len(about['left_out'])} left out; {table.parent / 'about.json'} says which and why")
    _print({"table": table, **about}, as_json, *lines)


@app.command()
def train(
    method: Annotated[
        str,
        typer.Argument(
            metavar="METHOD",
            help="pylon, cam, li2018, unet, fpn, deeplabv3plus or pan; taggan, vagan or guided; or student.",
            show_default=False,
        ),
    ],
    source: Source,
    out: Annotated[Path, typer.Option("--out", help="The run folder.", show_default=False)],
    preset: Annotated[
        Literal["paper", "small"] | None,
        typer.Option(
            "--preset",
            help="paper: the method's published recipe. small: for a few thousand images."
            " Default: small for taggan, vagan and guided, paper for the others; a student has none.",
        ),
    ] = None,
    backbone: Annotated[str | None, typer.Option("--backbone", help="Any timm network, as resnet50.")] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            help="Its first weights. timm: downloaded; package: from an installed package; none: random; or a file.",
        ),
    ] = None,
    channels: Annotated[int | None, typer.Option("--channels", help="Input channels, 1 or 3.")] = None,
    size: Annotated[int | None, typer.Option("--size", metavar="PX", help="Input side, a multiple of 32.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="At most so many passes.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Of the generators (taggan, vagan, guided).")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Images a step.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate at its highest.")] = None,
    mixed_precision: Annotated[
        Literal["no", "bf16", "fp16"] | None, typer.Option("--mixed-precision", help="Of the forward pass.")
    ] = None,
    start_from: Annotated[
        Path | None,
        typer.Option("--start-from", metavar="RUN", help="Begin with the weights of this run, where they fit."),
    ] = None,
    lungs: Annotated[
        Path | None,
        typer.Option(
            "--lungs",
            metavar="RUN",
            help="Show the network nothing but the lungs, which this run outlines: docs/maps.md.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of everything random in training.")] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            "--also",
            metavar="SOURCE",
            help="Train on these images too; findings they do not label are unknown in them. Repeat it for several."
            " taggan, vagan and guided take the findings of all, and validate on all.",
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Any setting, as augment.flip_p=0 or options.pool=lse; repeat."
        ),
    ] = None,
    normal: Annotated[
        str | None,
        typer.Option(
            "--normal",
            metavar="FINDING",
            help="The finding that means healthy (taggan, vagan, guided). Default: one called normal, or all 0.",
        ),
    ] = None,
    splits: Splits = None,
    split_seed: SplitSeed = 0,
    finding: Findings = None,
    as_json: Json = False,
) -> None:
    """Train a localiser on image labels.

    Writes a run folder. Only the train and val splits are used, and no box or mask, but for a student, which learns
    from masks that a run proposed (radtag tag --as-dataset). What is not given comes from
    the preset; docs/runs.md lists every setting. The same command, given again, goes on with a run that was
    stopped. For several GPUs or machines, put `accelerate launch -m` before it: docs/distributed.md.

    \b
    Example: radtag train pylon csv:chest/table.csv --out runs/chest --preset small --backbone resnet18
    """
    process.keep_memory()
    from radtag.data.sources import open_together
    from radtag.models import GAMES, refuse_unknown
    from radtag.train import adversarial, classify, segment
    from radtag.train.run import alone
    from radtag.train.settings import AdversarialSettings, StudentSettings, TrainSettings, settings_from

    refuse_unknown(method)
    flags = {
        "backbone.name": backbone,
        "backbone.weights": weights,
        "backbone.channels": channels,
        "size_px": size,
        "epochs": epochs,
        "steps": steps,
        "batch_size": batch_size,
        "lr": lr,
        "mixed_precision": mixed_precision,
        "start_from": str(start_from) if start_from is not None else None,
        "lungs": str(lungs) if lungs is not None else None,
        "seed": seed,
    }
    changes = _nested({key: value for key, value in flags.items() if value is not None}, setting or [])
    settings = settings_from(preset, method=method, **changes)
    first = changes.get("backbone", {}).get("weights", "none")
    if start_from is not None and first != "none":
        raise BadSetting(
            f"--weights {first} and --start-from {start_from}: all weights of the backbone come from the run."
            " Leave one of the two out."
        )
    if normal is not None and method not in GAMES:
        raise BadSetting(f"--normal {normal}: {method} learns findings, and has no healthy side. Leave it out.")
    # Findings that are not wanted say who is not healthy: two sides are told apart by all of them.
    specs = [source, *(also or [])]
    wanted = None if method in GAMES else finding
    dataset, *further = open_together(specs, splits=splits, seed=split_seed, findings=wanted)
    if method not in GAMES:
        for one in further:
            dataset = dataset.join(one)
    console = _console()
    for note in dataset.notes if method not in GAMES else ():  # a game tells all that it makes two sides of
        console.print(f"note: {note}", markup=False, highlight=False)
    first = int(os.environ.get("RANK", "0")) == 0  # of the processes that share the training
    with alone(out) if first else nullcontext():
        if isinstance(settings, AdversarialSettings):
            run = adversarial.train(
                settings, dataset, out, also=further, findings=finding, normal=normal, console=console
            )
        elif isinstance(settings, StudentSettings):
            run = segment.train(settings, dataset, out, console=console)
        else:
            assert isinstance(settings, TrainSettings)
            run = classify.train(settings, dataset, out, console=console)
    if first:
        lines = [f"{key.replace('_', ' ')}: {_listed(value)}" for key, value in run.card.get("validation", {}).items()]
        _print({"run": run.path, "card": run.card}, as_json, *lines, f"-> {run.path}")


@import_app.command("pylon")
def import_pylon(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The authors' checkpoint.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The run folder.", show_default=False)],
    calibrate_on: Annotated[
        str | None,
        typer.Option(
            "--calibrate-on", metavar="SOURCE", help="Set scores and thresholds on the val split of this data."
        ),
    ] = None,
    splits: Splits = None,
    split_seed: SplitSeed = 0,
    as_json: Json = False,
) -> None:
    """Make a run from the published PYLON checkpoint.

    Nothing in the file is executed. Without --calibrate-on, scores and maps are the network's own sigmoids, and 0.5
    is every threshold.

    \b
    Example: radtag import pylon net.pkl --out runs/published --calibrate-on nih14:ChestX-ray14
    """
    from radtag.data.sources import open_source
    from radtag.train.published import import_pylon as act

    source = open_source(calibrate_on, splits=splits, seed=split_seed) if calibrate_on is not None else None
    run = act(file, out, calibrate_on=source)
    _print({"run": run.path, "card": run.card}, as_json, f"{counted(len(run.findings), 'finding[s]')} -> {run.path}")


@app.command()
def tag(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)],
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILES...",
            help="Images, folders or patterns: DICOM, PNG, JPEG, TIFF, NIfTI. With --as-dataset: one SOURCE.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for tags.csv, maps/, masks/, overlays/.", show_default=False)
    ] = None,
    as_dataset: Annotated[
        Path | None,
        typer.Option(
            "--as-dataset",
            metavar="DIR",
            help="In place of --out: folder for a data set of SOURCE's images with masks for what their labels say.",
        ),
    ] = None,
    with_run: WithRun = None,
    finding: Findings = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option("--threshold", metavar="[NAME=]VALUE", help="Positive from this score. Default: as validated."),
    ] = None,
    mask: MaskOver = "validated",
    grid: LaidBy = "measured",
    tta: Mirrored = "none",
    min_area: MinArea = None,
    area: MaskArea = "image",
    explain: Explain = None,
    explain_layer: ExplainLayer = None,
    explain_scale: ExplainScale = "score",
    save: Annotated[
        list[str] | None,
        typer.Option(
            "--save",
            metavar="WHAT",
            help="maps, masks, overlays, counterparts or none; repeat for several. Default: all that the run has.",
        ),
    ] = None,
    save_for: Annotated[
        Literal["positive", "all"], typer.Option("--save-for", help="Pictures of positive findings, or of all.")
    ] = "positive",
    device: Device = "auto",
    batch_size: BatchSize = 16,
    threads: Annotated[
        int | None,
        typer.Option("--threads", min=1, help="For reading and writing each. Default: by the cores, at most 8."),
    ] = None,
    splits: Splits = None,
    split_seed: SplitSeed = 0,
    as_json: Json = False,
) -> None:
    """Tag images with scores, maps, masks and boxes.

    Everything is in the image's own pixels. Writes tags.csv, maps/ (16-bit PNG, 65535 = 1.0), masks/ (1-bit PNG),
    overlays/ (JPEG, to look at) and manifest.json. --save names what is written instead: --save masks is the quickest
    that still has every outline. A second call skips what is done. Files that cannot be read are
    listed at the end, and the exit status is then 1.

    --as-dataset takes a labelled SOURCE, as in radtag tag runs/chest csv:chest/table.csv --as-dataset tagged, and
    writes it again with a proposed mask for every finding that a label says is there: table.csv, masks/, boxes.csv,
    coco.json, and check.html, the most doubtful first. --splits and --split-seed are for it.
    docs/tagging-a-dataset.md says how to train on the masks.

    \b
    Example: radtag tag runs/chest images/ --out tags
    """
    if (out is None) == (as_dataset is None):
        raise BadSetting("give one of --out DIR, for the tags of files, and --as-dataset DIR, for a data set's masks.")
    process.keep_memory()
    process.let_waiting_threads_sleep()
    options = {
        "device": device,
        "batch_size": batch_size,
        "findings": finding,
        "threshold": _thresholds(threshold),
        "mask": _mask_rule(mask),
        "grid": grid,
        "tta": tta,
        "min_area_px": min_area,
        "area": area,
        "explain": explain,
        "explain_layer": explain_layer,
        "explain_scale": explain_scale,
    }
    if as_dataset is not None:
        for given, name in ((threads is not None, "--threads"), (save_for != "positive", f"--save-for {save_for}")):
            if given:
                raise BadSetting(f"{name} is of --out. With --as-dataset labels say what is written; leave it out.")
        _propose([run, *(with_run or [])], files, as_dataset, save, splits, split_seed, options, as_json)
        return
    assert out is not None
    if splits is not None:
        raise BadSetting(f"--splits {splits}: files have no splits. Leave it out, or give --as-dataset and a SOURCE.")
    if split_seed:
        raise BadSetting(f"--split-seed {split_seed}: files have no splits. Leave it out, or give --as-dataset.")
    from radtag.tag import tag_files

    wanted = [name for name in save if name != "none"] if save else None
    with _progress("tagging") as advance:
        summary = tag_files(
            [run, *(with_run or [])],
            files,
            out,
            save=wanted,  # type: ignore[arg-type]  # it says itself what can be saved
            save_for=save_for,
            threads=threads,
            progress=advance,
            **options,
        )
    _print(summary.to_dict(), as_json, *summary.lines())
    if not summary.ok:
        raise typer.Exit(1)


def _propose(
    runs: Sequence[Path],
    given: Sequence[str],
    out: Path,
    save: Sequence[str] | None,
    splits: Path | None,
    split_seed: int,
    options: Mapping[str, Any],
    as_json: bool,
) -> None:
    """What tag does with --as-dataset."""
    from radtag.data.sources import open_source
    from radtag.propose import propose

    if len(given) != 1:
        raise BadSetting(f"--as-dataset takes one SOURCE, such as csv:table.csv, got {', '.join(given)}.")
    if save:
        raise BadSetting(f"--save {save[0]}: a data set has its masks and pictures. Leave it out, or give --out.")
    dataset = open_source(given[0], splits=splits, seed=split_seed)
    for note in dataset.notes:
        _console().print(f"note: {note}", markup=False, highlight=False)
    with _progress("proposing masks") as advance:
        summary = propose(runs, dataset, out, progress=advance, **options)
    _print(summary.to_dict(), as_json, *summary.lines())
    if not summary.ok:
        raise typer.Exit(1)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)],
    source: Source,
    out: Annotated[Path, typer.Option("--out", help="Folder for the numbers and the report.", show_default=False)],
    also: Annotated[
        list[str] | None,
        typer.Option(
            "--also",
            metavar="SOURCE",
            help="Score these images too; findings they do not label are unknown in them. Repeat it for several.",
        ),
    ] = None,
    only: ScoredSplits = None,
    splits: Splits = None,
    split_seed: SplitSeed = 0,
    with_run: WithRun = None,
    finding: Findings = None,
    grid: LaidBy = "measured",
    tta: Mirrored = "none",
    mask: MaskOver = "validated",
    area: MaskArea = "image",
    explain: Explain = None,
    explain_layer: ExplainLayer = None,
    explain_scale: ExplainScale = "score",
    inside: CountedInside = "image",
    by: ByColumn = None,
    faithfulness: Faithfulness = 0,
    seen: SeenBefore = "refuse",
    bootstraps: Bootstraps = 1000,
    seed: BootstrapSeed = 0,
    device: Device = "auto",
    batch_size: BatchSize = 16,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Score a run on images it was not trained on.

    Writes metrics.json (every number with its 95 % interval; docs/metrics.md), pairs.csv and report.html. Boxes and
    masks are read here, and nowhere in training. A result in --out of another run, other data or other options is
    replaced only if asked. Images that the run was trained on, or set its thresholds on, are refused: it knows their
    files by their content (docs/runs.md).

    \b
    Example: radtag evaluate runs/chest csv:chest/table.csv --out evaluation
    """
    process.keep_memory()
    process.let_waiting_threads_sleep()
    from radtag.data.sources import open_together
    from radtag.evaluate import evaluate as act

    wanted = only or ["test"]
    dataset, *others = open_together([source, *(also or [])], splits=splits, only=wanted, seed=split_seed)
    dataset = dataset.beside(*others)
    if finding:
        dataset = dataset.with_findings(finding)
    with _progress("evaluating") as advance:
        result = act(
            [run, *(with_run or [])],
            dataset,
            out,
            inside=inside,
            by=by or (),
            faithfulness=faithfulness,
            seen=seen,
            bootstraps=bootstraps,
            seed=seed,
            overwrite=overwrite,
            progress=advance,
            grid=grid,
            tta=tta,
            mask=_mask_rule(mask),
            area=area,
            explain=explain,
            explain_layer=explain_layer,
            explain_scale=explain_scale,
            device=device,
            batch_size=batch_size,
        )
    _print_scored(result, out, finding, as_json)


@app.command()
def score(
    maps: Annotated[
        Path,
        typer.Argument(
            metavar="MAPS",
            show_default=False,
            help="A folder of maps, FINDING/NAME.png (.npy, .npz, .nii.gz, .pkl) or NAME_FINDING_map.pkl; or of tags.",
        ),
    ],
    source: Source,
    out: Annotated[Path, typer.Option("--out", help="Folder for the numbers and the report.", show_default=False)],
    scores: Annotated[
        Path | None,
        typer.Option(
            "--scores",
            metavar="FILE.csv",
            help="A tags.csv, or columns image and each finding. Default: in the maps' files, else their maxima.",
        ),
    ] = None,
    values: Annotated[
        Literal["absolute", "image", "sigmoid"],
        typer.Option("--values", help="absolute: 0-1. image: stretch each map to 0-1 by itself. sigmoid: logits."),
    ] = "absolute",
    mask: Annotated[
        str | None,
        typer.Option(
            "--mask",
            metavar="RULE",
            help="What a map must exceed: otsu, or a value 0-1. Default: of tags.csv, else 0.5.",
        ),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Positive from this score. Default: of tags.csv, else 0.5.")
    ] = None,
    thresholds_from: Annotated[
        tuple[Path, str] | None,
        typer.Option("--thresholds-from", metavar="MAPS SOURCE", help="Choose both on these maps and images instead."),
    ] = None,
    thresholds_split: Annotated[
        str, typer.Option("--thresholds-split", metavar="SPLIT", help="The split of these images to choose on.")
    ] = "val",
    missing: Annotated[
        Literal["refuse", "empty"],
        typer.Option("--missing", help="A pair without a map: refuse, or count it as a map of nothing."),
    ] = "refuse",
    min_area: MinArea = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(
            "--measure",
            metavar="NAME",
            help="pointing or iou: this alone, in seconds and without a report; repeat it for both. Default: all.",
        ),
    ] = None,
    only: ScoredSplits = None,
    splits: Splits = None,
    split_seed: SplitSeed = 0,
    finding: Findings = None,
    inside: CountedInside = "image",
    by: ByColumn = None,
    bootstraps: Bootstraps = 1000,
    seed: BootstrapSeed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Score maps that anyone made.

    Writes what evaluate writes for a run, so that compare and pool take it. Maps of another size than their image are
    stretched over it, bilinearly. Thresholds may be chosen on a validation split, never on images that are scored.
    Pickles are read as data alone: one that names anything else is refused, and nothing of it is run.

    \b
    Example: radtag score gradcam_maps chexpert:CheXpert --values image --mask otsu --out scores
    """
    process.keep_memory()
    from radtag.data.sources import open_source
    from radtag.score import score as act

    dataset = open_source(source, splits=splits, only=only or ["test"], seed=split_seed, findings=finding)
    validation = None
    if thresholds_from is not None:
        folder, other = thresholds_from
        chosen_on = open_source(other, splits=splits if other == source else None, seed=split_seed)
        validation = (folder, chosen_on.only(thresholds_split))
    with _progress("scoring") as advance:
        result = act(
            maps,
            dataset,
            out,
            scores=scores,
            values=values,
            mask=None if mask is None else _mask_rule(mask),
            threshold=threshold,
            validation=validation,
            missing=missing,
            min_area_px=min_area,
            measures=measure or (),
            inside=inside,
            by=by or (),
            bootstraps=bootstraps,
            seed=seed,
            overwrite=overwrite,
            progress=advance,
        )
    _print_scored(result, out, finding, as_json, "metrics.json" if measure else "report.html")


@app.command()
def pool(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="What evaluate wrote, once a fold.")],
    out: Annotated[Path, typer.Option("--out", help="A new folder, written as an evaluation.", show_default=False)],
    bootstraps: Bootstraps = 1000,
    seed: BootstrapSeed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Put the folds of a cross-validation together.

    Every number is taken over the pairs of all folds, with one bootstrap over all patients.

    \b
    Example: radtag pool fold0 fold1 fold2 fold3 --out pooled
    """
    from radtag.evaluate import pool as act
    from radtag.report.terminal import metrics_table

    result = act(folders, out, bootstraps=bootstraps, seed=seed, overwrite=overwrite)
    _print(result, as_json, metrics_table(result), f"-> {out / 'report.html'}")


@app.command()
def compare(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="What evaluate or pool wrote; the first is compared with.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for comparison.html and comparison.json.")] = Path(
        "comparison"
    ),
    name: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="NAME", help="What to call them, in order; repeat. Default: method or folder."),
    ] = None,
    bootstraps: Annotated[int, typer.Option("--bootstraps", min=1, help="Draws of patients for the intervals.")] = 1000,
    seed: BootstrapSeed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Compare evaluations of the same images.

    Differences are each evaluation minus the first, on the same pairs and the same draws of patients; an interval
    without 0 is a difference at the 95 % level.

    \b
    Example: radtag compare evaluation/cam evaluation/pylon --out comparison
    """
    from radtag.compare import comparison as act
    from radtag.report.terminal import comparison_table

    result = act(folders, out, names=name or (), bootstraps=bootstraps, seed=seed, overwrite=overwrite)
    _print(result, as_json, comparison_table(result), f"-> {out / 'comparison.html'}")


@app.command()
def benchmark(
    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help="What to compare on what.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", help="Folder. Default: the file's own.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Say how far each cell is, and do nothing.")] = False,
    source: Annotated[
        list[str] | None, typer.Option("--source", metavar="NAME", help="Only cells of this data set; repeat.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option("--method", metavar="NAME", help="Only cells of this method; repeat.")
    ] = None,
    fold: Annotated[list[str] | None, typer.Option("--fold", metavar="FOLD", help="Only this fold; repeat.")] = None,
    seed: Annotated[list[int] | None, typer.Option("--seed", metavar="SEED", help="Only this seed; repeat.")] = None,
    as_json: Json = False,
) -> None:
    """Compare methods on data sets, over folds and seeds.

    Trains and evaluates every cell (data set, method, fold, seed), pools folds, compares methods in pairs, and writes
    one page with tables and plots: benchmark.html, and the same numbers as .csv, .md, .tex and .json. What is done is
    passed over, and what was stopped goes on. Several processes that are given the same file share the work. Cells
    that fail are listed at the end, and the exit status is then 1. docs/benchmark.md has what stands in the file.

    \b
    Example: radtag benchmark benchmark.toml
    """
    process.keep_memory()
    process.let_waiting_threads_sleep()
    from radtag.benchmark import benchmark as act
    from radtag.benchmark import chosen, read_plan, states

    plan = read_plan(file, out=out)
    cells = chosen(plan, sources=source or (), methods=method or (), folds=fold or (), seeds=seed or ())
    if listed:
        now = states(plan, cells)
        lines = [f"{one.state:8} {one.cell}{f': {one.note}' if one.note else ''}" for one in now]
        _print({"cells": [one.to_dict() for one in now]}, as_json, *lines)
        return
    outcome = act(plan, cells, console=_console(), bar=_progress)
    if as_json:
        _print(outcome.to_dict(), as_json)
    else:
        from radtag.report.terminal import benchmark_tables

        _print({}, as_json, *benchmark_tables(outcome.value), *outcome.lines())
    if not outcome.ok:
        raise typer.Exit(1)


# Below: reading options and printing; no decisions about images.


def _nested(flags: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Dotted keys as nested dictionaries; ``key=value`` texts come last. A value is read as TOML, else as text."""
    pairs = list(flags.items())
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise BadSetting(f"--set {text}: there is no KEY=VALUE in it. Write --set {key.strip() or 'epochs'}=VALUE.")
        pairs.append((key.strip(), _value(value.strip())))
    nested: dict[str, Any] = {}
    for key, value in pairs:
        *parents, last = key.split(".")
        into = nested
        for parent in parents:
            into = into.setdefault(parent, {})
            if not isinstance(into, dict):
                raise BadSetting(f"--set {key}: {parent} was given a value of its own. Give it or its parts.")
        into[last] = value
    return nested


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _findings_of(texts: Sequence[str], option: str) -> dict[str, list[str]]:
    """KIND=FINDING+FINDING, several times -> kind -> findings."""
    named: dict[str, list[str]] = {}
    for text in texts:
        kind, equals, findings = text.partition("=")
        if not (kind and equals and findings):
            raise BadSetting(f"{option} {text}: write KIND=FINDING, or KIND=FINDING+FINDING.")
        named.setdefault(kind, []).extend(findings.split("+"))
    return named


def _thresholds(texts: Sequence[str] | None) -> float | dict[str, float] | None:
    if not texts:
        return None
    named: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            raise BadSetting(f"--threshold {text}: {number!r} is not a number. Write 0.4 or NAME=0.4.") from None
        if not name:
            if len(texts) > 1:
                raise BadSetting(f"--threshold {text}: without a name it is for all findings, and stands alone.")
            return value
        named[name] = value
    return named


def _mask_rule(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, moved by a function of (done, of all)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = _console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _print_scored(
    result: Mapping[str, Any],
    out: Path,
    finding: Sequence[str] | None,
    as_json: bool,
    file: Literal["report.html", "metrics.json"] = "report.html",
) -> None:
    """What evaluate and score say: images and findings left out, or counted unduly, the table, and where to look."""
    from radtag.data.seen import sentences
    from radtag.report.terminal import MAIN, faithfulness_table, metrics_table

    for note in sentences(result["about"].get("seen", {})):
        _console().print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    for note in result["about"]["left_out"] if finding is None else ():
        _console().print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    shown = MAIN if file == "report.html" else ("pointing", "iou", "iou_0.5", "dice", "healthy_marked")
    tables: list[str | Table] = [metrics_table(result, shown)]
    if "faithfulness" in result:
        tables += ["", faithfulness_table(result["faithfulness"])]
    _print(result, as_json, *tables, f"-> {out / file}")


def _print(values: Mapping[str, Any], as_json: bool, *parts: str | Table) -> None:
    if as_json:
        print(json.dumps(_plain(values), indent=2, ensure_ascii=False, allow_nan=False))
        return
    for part in parts:
        if isinstance(part, str):
            print(part)
        else:
            from rich.console import Console

            # As wide as it is, where there is no terminal to fit.
            Console(width=None if sys.stdout.isatty() else 1000).print(part)


def _listed(value: Any) -> str:
    """A dictionary in one line, anything else as it is; None is a number that does not exist."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_listed(item)}" for key, item in value.items())
    return "undefined" if value is None else str(value)


def _plain(value: Any) -> Any:
    """Paths as text, numpy's numbers as Python's, NaN as null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item") and not isinstance(value, str):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
