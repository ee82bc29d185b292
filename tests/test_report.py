"""The report: one file, without network, that holds every finding and number and opens in a browser."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as Pillow
from rich.console import Console

from radtag.compare import comparison
from radtag.data.table import Dataset, Record
from radtag.evaluate import evaluate
from radtag.geometry import Frame, Grid
from radtag.report import plots
from radtag.report.comparison import write_comparison
from radtag.report.definitions import DEFINITIONS
from radtag.report.page import Colours, Gallery, figure, span, thousands, write_report
from radtag.report.terminal import comparison_table, metrics_table
from radtag.tag import Layer, Prediction, Tag

FINDINGS = ("opacity & <shadow>", "nodule")
SIZE = (48, 64)
ALARMED = ("11.png", "12.png", "13.png")
VOID = {"meta", "link", "img", "br"}
SVG_VOID = {"path", "line", "circle", "use", "rect"}


class Noisy:
    """A tagger whose maps and scores lean towards the truth by some skill."""

    findings = FINDINGS

    def __init__(self, name: str, labels: dict[str, tuple[float, ...]], skill: float) -> None:
        self.labels, self.skill = labels, skill
        calibration = SimpleNamespace(notes=("nodule: a note of the calibration",))
        settings = SimpleNamespace(method=name)
        card = {
            "data": "drawn <here>",
            "images": 12345,
            "hardware": "one CPU",
            "minutes": 1.25,
            "trained on": {"seed": 3},
        }
        self.runs = (SimpleNamespace(path=Path(name), settings=settings, card=card, calibration=calibration),)

    def predict(self, images):
        for image in images:
            name = Path(image.source).name
            random = np.random.default_rng(int(Path(name).stem))
            labels = np.array(self.labels[name])
            maps = random.uniform(0.02, 0.3, size=(2, 12, 16)).astype(np.float32)
            maps[:, 3:6, 4:8] += (0.6 * self.skill * labels)[:, None, None].astype(np.float32)
            if name in ALARMED and not labels.any():
                maps[0, 0, 0] = 0.9
            scores = np.clip(0.3 + 0.4 * self.skill * labels + random.normal(0, 0.15, 2), 0.01, 0.99)
            layer = Layer(maps, (Grid.tiles((12, 16), (48, 48)),) * len(maps), Frame.stretch(image.size_rc, (48, 48)))
            yield Prediction(image, scores.astype(np.float32), (layer,))

    def tags(self, prediction, name):
        return [
            Tag(name, f, float(prediction.scores[i]), 0.5, 0.5, None, prediction, i) for i, f in enumerate(FINDINGS)
        ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two evaluations, ``strong`` and ``weak``, and their comparison."""
    folder = tmp_path_factory.mktemp("report")
    random = np.random.default_rng(0)
    records, labels = [], {}
    for i in range(14):
        name = f"{i}.png"
        Pillow.fromarray(random.integers(0, 256, SIZE, dtype=np.uint8)).save(folder / name)
        labels[name] = (float(i % 2), float(i % 3 == 1))
        boxes = {f: ((16.0, 12.0, 32.0, 24.0),) for f, label in zip(FINDINGS, labels[name], strict=True) if label}
        records.append(Record(name, folder / name, labels[name], patient=f"p{i // 2}", split="test", boxes_xyxy=boxes))
    dataset = Dataset("drawn <set>", FINDINGS, tuple(records), notes=("a <note> of the source",))
    evaluate(Noisy("strong", labels, 1.0), dataset, folder / "strong", bootstraps=60)
    evaluate(Noisy("weak", labels, 0.2), dataset, folder / "weak", bootstraps=60)
    comparison([folder / "weak", folder / "strong"], folder / "both", bootstraps=60)
    return folder


PAGES = ("strong/report.html", "both/comparison.html")


class Structure(HTMLParser):
    """Open and close tags in order, ids once, every picture with words."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.pictures: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if "id" in values:
            self.ids.append(str(values["id"]))
        if (values.get("href") or "").startswith("#"):
            self.links.append(str(values["href"])[1:])
        if tag == "img":
            self.pictures.append(values)
        if tag not in VOID | SVG_VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID | SVG_VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in SVG_VOID:
            return
        assert self.open.pop() == tag


@pytest.mark.parametrize("page", PAGES)
def test_one_file_without_network(folder: Path, page: str) -> None:
    text = (folder / page).read_text(encoding="utf-8")
    assert not re.search(r"https?:", text)
    assert not re.search(r"@import|<iframe|<object|srcset|//cdn", text)
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert not re.search(r"url\((?!#)", text)
    assert len(text) < 5_000_000


@pytest.mark.parametrize("page", PAGES)
def test_well_formed(folder: Path, page: str) -> None:
    structure = Structure()
    structure.feed((folder / page).read_text(encoding="utf-8"))
    assert structure.open == []
    assert len(structure.ids) == len(set(structure.ids))
    assert set(structure.links) <= set(structure.ids)
    assert structure.pictures
    assert all(picture["alt"] and picture["width"] and picture["height"] for picture in structure.pictures)


def test_every_finding_and_value(folder: Path) -> None:
    text = (folder / "strong" / "report.html").read_text(encoding="utf-8")
    result = json.loads((folder / "strong" / "metrics.json").read_text())
    cells = set(re.findall(r'<span class="v">([^<]*)</span>', text))
    intervals = set(re.findall(r'<span class="ci">([^<]*)</span>', text))
    for finding, metrics in result["findings"].items():
        assert html.escape(finding) in text
        for key, entry in metrics.items():
            unit = "%" if key in ("healthy_marked", "healthy_any") else ""
            assert figure(entry["value"], unit) in cells, key
            assert span(entry["low"], entry["high"], unit) in intervals, key
    assert "<shadow>" not in text
    for one in DEFINITIONS:
        assert (f"<code>{one.key}</code>" in text) == (one.key in result["micro"])
    for words in (
        "Research use only",
        "drawn &lt;set&gt;",
        "a &lt;note&gt; of the source",
        "12\u202f345",
        "note of the calibration",
    ):
        assert words in text


def test_another_finding_asked_for_is_shown(folder: Path) -> None:
    result = json.loads((folder / "strong" / "metrics.json").read_text())
    text = (folder / "strong" / "report.html").read_text()
    section = text.split('<h2 id="asked">')[1].split("</section>")[0]
    assert '<a href="#asked">' in text
    for name in FINDINGS:
        for other in FINDINGS:
            cell = result["asked"]["findings"][name][other]
            assert f'<span class="v">{figure(cell["map_mean"]["value"], "%")}</span>' in section
            assert name == other or f">own {figure(cell['own_minus']['value'], '±%')}<" in section
    # The map of what is there is raised; that of what is not is noise.
    assert section.count('<span class="verdict">fainter</span>') == 2
    assert '<th scope="row">none of them</th><td>5</td>' in section
    del result["asked"]  # an earlier evaluation, or one finding alone
    write_report(folder / "one.html", result, [], Gallery(Colours("red", "blue", ("black", "white"))))
    assert 'id="asked"' not in (folder / "one.html").read_text()


def test_gallery_holds_best_median_and_worst(folder: Path) -> None:
    text = (folder / "strong" / "report.html").read_text(encoding="utf-8")
    pairs = list(csv.DictReader((folder / "strong" / "pairs.csv").open(encoding="utf-8")))
    for rank in ("Best", "Median", "Worst"):
        assert text.count(f"<b>{rank}</b>") == len(FINDINGS)
    alarms = text.split('<h2 id="alarms">')[1].split("</section>")[0]
    free = {row["image"] for row in pairs if row["label"] == "0"} - {
        row["image"] for row in pairs if row["label"] == "1"
    }
    assert set(re.findall(r'<span class="name">([^<]*)</span>', alarms)) == free & set(ALARMED), (
        "marked, and free of all"
    )
    assert "Images free of all these findings, drawn without choosing" in text


def test_comparison_shows_the_same_images(folder: Path) -> None:
    kept = [json.loads((folder / name / "pictures.json").read_text()) for name in ("strong", "weak")]
    assert [(one["image"], one["rank"]) for one in kept[0]] == [(one["image"], one["rank"]) for one in kept[1]]
    text = (folder / "both" / "comparison.html").read_text(encoding="utf-8")
    assert text.count("<b>weak</b>") == text.count("<b>strong</b>") == len(kept[0])
    value = json.loads((folder / "both" / "comparison.json").read_text())
    assert value["names"] == ["weak", "strong"]
    assert "Of the main numbers, strong is ahead of weak in" in text
    gain = value["differences"][0]["macro"]["auroc"]["value"]
    assert f"AUROC ({gain:+.3f})" in text


def test_cards_are_means_over_findings_and_say_so(folder: Path) -> None:
    text = (folder / "strong" / "report.html").read_text(encoding="utf-8")
    result = json.loads((folder / "strong" / "metrics.json").read_text())
    tiles = text[text.index('<div class="tiles">') : text.index("<section")]
    feet = re.findall(r'<div class="foot">(.*?)</div>', tiles, re.DOTALL)
    shown = re.findall(r'<div class="big">(.*?)</div>', tiles)
    assert len(feet) >= 4
    assert all("macro: mean of 2 findings" in foot for foot in feet)
    wanted = {"auroc": "", "pointing": "%", "box_0.5": "%", "healthy_marked": "%"}
    assert shown == [figure(result["macro"][key]["value"], unit) for key, unit in wanted.items()]
    for key, unit in {"auroc": "", "pointing": "%", "healthy_marked": "%"}.items():
        assert figure(result["macro"][key]["value"], unit) in text[text.index('"lede"') : text.index('"notice"')]


def _entry(value: float, low: float, high: float, n: int = 20, undefined: int = 0) -> dict[str, float | int]:
    return {"value": value, "low": low, "high": high, "n": n, "undefined": undefined}


def _compared(path: Path, numbers: list[dict[str, dict]], apart: dict[str, dict], images: int = 20) -> str:
    """The page of two evaluations of one finding that have these numbers."""
    about = {
        "date": "",
        "versions": {"radtag": ""},
        "data": "d",
        "card": {},
        "notes": [],
        "bootstraps": 9,
        "seed": 0,
        "patients": 20,
        "images": 20,
    }
    colours = Colours("#000", "#fff", ("#000",))
    results = [{"about": about, "findings": {"x": one}, "micro": one, "macro": one} for one in numbers]
    between = {"about": {"images": images, "patients": 20}, "findings": {"x": apart}, "micro": apart, "macro": apart}
    write_comparison(path, ["old", "new"], results, [between], colours, [], [])
    return path.read_text(encoding="utf-8")


def test_a_difference_is_better_or_worse_and_not_only_sure(tmp_path: Path) -> None:
    values = {"auroc": _entry(0.8, 0.7, 0.9), "healthy_marked": _entry(0.1, 0.1, 0.2), "dice": _entry(0.5, 0.4, 0.6)}
    apart = {
        "auroc": _entry(-0.125, -0.2, -0.1),
        "healthy_marked": _entry(-0.05, -0.06, -0.04),
        "dice": _entry(0.011, -0.1, 0.2),
    }
    text = _compared(tmp_path / "a.html", [values, values], apart)
    cells = re.findall(r"<td[^>]*>(?:(?!</td>).)*</td>", text[text.index('id="difference-1"') :])
    of = {name: next(cell for cell in cells if f">{name}<" in cell) for name in ("−0.125", "−5.00", "+0.011")}
    assert 'class="worse"' in of["−0.125"]
    assert ">worse<" in of["−0.125"]
    assert 'class="better"' in of["−5.00"]
    assert ">better<" in of["−5.00"]
    assert "class" not in of["+0.011"].split(">")[0]
    assert "var(--better)" in text[text.index("<svg") :]
    assert "var(--worse)" in text[text.index("<svg") :]


def test_numbers_of_other_pairs_are_not_ranked(tmp_path: Path) -> None:
    dice, better = _entry(0.5, 0.4, 0.6), _entry(0.6, 0.5, 0.7)
    numbers = [
        {"precision": _entry(0.3, 0.2, 0.4, n=18, undefined=2), "dice": dice},
        {"precision": _entry(0.4, 0.3, 0.5, n=12, undefined=8), "dice": better},
    ]
    text = _compared(tmp_path / "a.html", numbers, {"dice": _entry(0.1, 0.05, 0.2)})
    rows = {name: re.search(rf"<tr><th[^>]*>{name}.*?</tr>", text, re.DOTALL)[0] for name in ("Dice", "Precision")}  # type: ignore[index]
    assert 'class="best"' in rows["Dice"]
    assert "<td>20</td>" in rows["Dice"]
    assert 'class="best"' not in rows["Precision"]
    assert "18 / 12" in rows["Precision"]
    assert "not ranked" in rows["Precision"]
    # As many pairs, but perhaps others.
    numbers[1]["precision"] = _entry(0.4, 0.3, 0.5, n=18, undefined=2)
    text = _compared(tmp_path / "b.html", numbers, {"dice": _entry(0.1, 0.05, 0.2)})
    assert text.count("not ranked<") == 1
    text = _compared(tmp_path / "c.html", numbers, {"dice": _entry(0.1, 0.05, 0.2)}, images=19)
    assert text.count("not ranked<") == 2


def test_plot_takes_the_colours_of_the_page() -> None:
    label, score = np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.1, 0.9, 0.4, 0.35])
    line = np.linspace(0, 1, 1000)
    svg = plots.presence_plots(label, score, (line, line), (line, 1 - line), 'a "b" & c')
    assert svg.startswith("<svg")
    assert 'aria-label="a &quot;b&quot; &amp; c' in svg
    assert "var(--accent)" in svg
    assert not re.search(r"#0102|http|<style|metadata", svg)
    other = plots.presence_plots(label, score, (line, line), (line, 1 - line), "d")
    ids = [set(re.findall(r' id="([^"]*)"', one)) for one in (svg, other)]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert len(svg) < 60_000


def test_reliability_by_hand() -> None:
    score = np.array([0.1, 0.2, 0.3, 0.8, 0.9])
    label = np.array([0.0, 0.0, 1.0, 1.0, 1.0])
    told, found, low, high, count = plots.reliability(label, score, bins=2)
    np.testing.assert_allclose(told, [0.15, 2 / 3])
    np.testing.assert_allclose(found, [0.0, 1.0])
    np.testing.assert_allclose(count, [2, 3])
    # Wilson's interval of 0 of 2 is 0 to z^2 / (2 + z^2), of 3 of 3 it is 3 / (3 + z^2) to 1.
    z2 = 1.959964**2
    np.testing.assert_allclose([low[0], high[0], low[1], high[1]], [0, z2 / (2 + z2), 3 / (3 + z2), 1], atol=1e-12)


def test_words_for_numbers() -> None:
    assert figure(None) == "–"
    assert figure(0.12345) == "0.123"
    assert (figure(0.00123, "%"), figure(0.5, "%")) == ("0.12 %", "50.0 %")
    assert (figure(-0.25, "±"), figure(-0.0001, "±"), figure(0.5, "±")) == ("−0.250", "0.000", "+0.500")
    assert (figure(-0.0012, "±%"), figure(0.00001, "±%")) == ("−0.12", "0.00")
    assert span(-0.1, 0.2, "±") == "−0.100 to +0.200"
    assert span(0.01, 0.2, "%") == "1.00–20.0 %"
    assert thousands(1234567) == "1\u202f234\u202f567"


def test_a_number_against_its_cost_has_its_words_on_the_page_and_no_share_below_0() -> None:
    for value in (0.0, 0.9925):
        shares = np.full(2, value), np.full(2, value), np.full(2, value + 0.001 * (value > 0))
        svg = plots.against_cost(["a", "b"], *shares, [("minutes", np.array([3.0, 5.0]))] * 2, "Pointing accuracy")
        upright = re.findall(r'x="(-?[0-9.]+)"[^>]*rotate\(-90[^>]*>Pointing accuracy', svg)
        assert len(upright) == 2
        assert float(upright[0]) > 8  # the height of its letters
        assert "\u2212" not in svg


@pytest.mark.browser
@pytest.mark.parametrize("page", PAGES)
def test_opens_in_a_browser(folder: Path, tmp_path: Path, page: str) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += [f"--user-data-dir={tmp_path}", "--virtual-time-budget=2000", "--dump-dom", (folder / page).as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    # The script ran: headings have become buttons.
    assert '<button type="button">AUROC</button>' in done.stdout


def test_small_shares_are_percentages_in_every_column():
    def part(value):
        return {"macro": {"healthy_marked": {"value": value, "low": value / 2, "high": value * 2}}, "findings": {}}

    value = {"names": ["CAM", "PYLON"], "evaluations": [part(0.014), part(0.001)], "differences": [part(-0.013)]}
    console = Console(width=120, file=io.StringIO())
    console.print(comparison_table(value))
    (row,) = [line for line in console.file.getvalue().splitlines() if line.startswith("Area marked")]
    assert row.split() == ["Area", "marked", "1.4%", "(0.7-2.8)", "0.1%", "(0.1-0.2)", "-1.3%", "(-0.7", "to", "-2.6)"]


def test_names_are_folded_in_a_narrow_terminal_and_no_number_is_cut() -> None:
    entry = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 9, "undefined": 0}
    part = dict.fromkeys(("auroc", "pointing", "dice"), entry)
    name = "a finding with many words in its name"
    shown = io.StringIO()
    Console(file=shown, width=86).print(metrics_table({"findings": {name: part}, "micro": part, "macro": part}))
    text = shown.getvalue()
    assert text.count("0.50 (0.25-0.75)") == 9
    assert "…" not in text
