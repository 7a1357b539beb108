"""The page of a report: what is in it, and that a browser shows it."""

import dataclasses
import html
import json
import re
import shlex
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from experiments import configs, report, train
from experiments.methods import GradTail, MethodConfig
from experiments.records import files
from experiments.records import runs as records
from experiments.reporting import groups, page, parts
from tests.experiments.folders import export_digits, export_weights, make_run

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)
HOSTILE = "</script><img src=x onerror=alert(1)>"
NAMES = [*map(str, range(9)), HOSTILE]
GRADTAIL = files.plain(MethodConfig(weighting=GradTail()))
HARMLESS = ("[bokeh", "ResizeObserver loop")  # messages


class Reader(HTMLParser):
    """Headings, images, what is loaded, and the text of some elements."""

    def __init__(self, text):
        super().__init__()
        self.headings, self.images, self.loads, self.texts = [], [], [], {}
        self._open = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self._open = tag
        if tag == "img":
            self.images.append(attrs)
        self.loads += [attrs[k] for k in ("src", "href") if k in attrs]

    def handle_endtag(self, tag):
        self._open = None

    def handle_data(self, data):
        self.texts.setdefault(self._open, []).append(data.strip())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The page of two methods on digits, with exported weights."""
    root = tmp_path_factory.mktemp("page")
    for name, accuracy, method in (
        ("plain", (0.1, 0.2, 0.3, 0.3, 0.4, 0.09), configs.PRESETS["smoke"].config),
        ("weighted", (0.1, 0.2, 0.6, 0.3, 0.4, 0.5), None),
    ):
        path = make_run(
            root / "runs" / name,
            preset="smoke",
            accuracy=accuracy,
            val=None,
            class_names=NAMES,
            data__name="digits",
            method=GRADTAIL if method is None else files.plain(method.method),
        )
        export_digits(path)
    report.report([root / "runs"], root / "out")
    return root / "out" / "report.html"


def test_everything_is_in_one_file(written):
    text = written.read_text()
    assert 2e6 < len(text) < 4e6  # Bokeh is 1.95 MB of it
    found = Reader(text)
    assert all(at.startswith(("data:", "#part-")) for at in found.loads)
    assert "@import" not in text
    assert found.texts["h1"] == ["Results"]
    assert found.texts["h2"] == ["digits"]
    assert found.texts["h3"] == [
        "Balanced test accuracy, %, by the epoch it is of",
        "Test results, %, epoch: mean of the last 5",
        "Test results, %, epoch: last",
        "Methods side by side",
        "Over time: CE",
        "Over time: GradTail",
        "Most suspicious labels: CE",
        "Most suspicious labels: GradTail",
        "Heaviest examples of the tail: GradTail",
        "Pictures",
        "Settings, and how to repeat this",
    ]
    pictures = list(written.parent.glob("*.png"))
    assert len(found.images) == len(pictures) + 3 * 24
    assert all(image["alt"] for image in found.images)
    assert all(image["src"].startswith("data:image/png") for image in found.images)


def test_suspects_and_the_tail(written):
    found = Reader(written.read_text())
    thumbnails = [image["alt"] for image in found.images[:72]]
    # The lowest margins are those of the last of the wrong labels.
    assert thumbnails[0].startswith("label ")
    assert "margin -1.49, index 395" in thumbnails[0]
    about = " ".join(found.texts["p"])
    assert "the label of 24 of these 24 is known to be wrong" in about
    weights = [float(re.search(r"weight ([\d.]+)", t)[1]) for t in thumbnails[48:]]
    assert weights == sorted(weights, reverse=True)
    assert weights[0] == pytest.approx(1.5 / 1.07, rel=0.02)
    assert all(t[6] in "789" for t in thumbnails[48:])  # fewer than 20 examples


def test_the_commands_repeat_the_runs(written):
    commands = Reader(written.read_text()).texts["pre"]
    assert len(commands) == 2
    words = shlex.split(commands[1])
    preset = configs.PRESETS["smoke"]
    assert words[:4] == ["python", "-m", "experiments.train", "smoke"]
    command = train.parse(preset, words[4:], "smoke")
    assert command.machine.out == "runs/weighted"
    data = dataclasses.replace(preset.config.data, name="digits")
    expected = dataclasses.replace(
        preset.config, data=data, epochs=6, method=MethodConfig(weighting=GradTail())
    )
    assert command.config == expected


def test_text_is_escaped(written):
    text = written.read_text()
    assert html.escape(HOSTILE, quote=False) in text
    assert HOSTILE not in text
    assert "<img src=x" not in text


def galleries(*paths):
    """Titles of galleries that are left out, and why they are."""
    (section,), _ = groups.arrange([run for p in paths for run in records.read_runs(p)])
    found = parts.part(section, [], []).galleries
    assert not any(gallery.examples for gallery in found)
    return {gallery.title: gallery.about for gallery in found}


def test_no_weights(tmp_path):
    plain = make_run(tmp_path / "a")
    weighted = make_run(tmp_path / "b", preset="gdw-cifar10-unif40-small")
    why = "No weights were exported: train with --export-weights."
    assert galleries(plain, weighted) == {
        "Most suspicious labels: CE, GDW": why,
        "Heaviest examples of the tail: GDW": why,
    }


def test_no_data(tmp_path, monkeypatch):
    for name in ("LTJAX_DATA", "TFDS_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "nowhere"))
    export_weights(make_run(tmp_path / "a"))
    (why,) = galleries(tmp_path / "a").values()
    assert why.startswith("The data cannot be read here: No cifar10 data in")


def test_other_data(tmp_path):
    export_weights(make_run(tmp_path / "a", preset="smoke", data__name="digits"))
    (why,) = galleries(tmp_path / "a").values()
    assert why == "The data found now are not those of the run."


def test_a_table(tmp_path):
    path = str(tmp_path / "own.npz")
    np.savez(path, inputs=np.ones((200, 3)), targets=np.arange(200) % 4)
    own = {"data__name": "arrays", "data__path": path}
    export_weights(make_run(tmp_path / "a", preset="table", **own))
    (why,) = galleries(tmp_path / "a").values()
    assert why.startswith("The data are a table, not images")


def test_regression(tmp_path):
    make_run(tmp_path / "a", preset="gradtail-abalone")
    (why,) = galleries(tmp_path / "a").values()
    assert why == "Targets are numbers here, not classes."
    (section,), _ = groups.arrange(records.read_runs(tmp_path / "a"))
    charts = [c.title for g in parts.part(section, [], []).charts for c in g.charts]
    assert charts == [
        "Test MAE by epoch",
        "Test MAE by region of the target",
        "Mean weight by region, relative to all examples",
    ]


def test_many_classes_are_grouped(tmp_path):
    run = make_run(tmp_path / "a", preset="gdw-cifar10-unif40", counts=[500] * 100)
    (section,), _ = groups.arrange(records.read_runs(run))
    (_, over_time) = parts.part(section, [], []).charts
    for chart in over_time.charts:
        assert list(chart.key)[1] == "places 11-20 (500)"
        assert len({*chart.key.values()}) == len(chart.key) == 10


def test_an_unknown_preset_has_no_command(tmp_path):
    path = make_run(tmp_path / "a")
    facts = json.loads((path / "config.json").read_text()) | {"preset": None}
    files.write_json(path / "config.json", facts)
    (section,), _ = groups.arrange(records.read_runs(path))
    own = parts.part(section, [], [])
    assert own.repeats[0].commands == []
    page.write(tmp_path / "x.html", "Results", [own])
    assert "so no command repeats it" in (tmp_path / "x.html").read_text()


def test_no_parts(tmp_path):
    page.write(tmp_path / "x.html", "Nothing", [], ["a <note>"])
    found = Reader((tmp_path / "x.html").read_text())
    assert "a <note>" in found.texts["li"]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to show the page in")
@pytest.mark.parametrize("width", [1400, 420])
def test_a_browser_shows_and_sorts_it(written, tmp_path, width):
    text = written.read_text()
    probe = (Path(__file__).parent / "probe.js").read_text()
    text = text.replace("<head>", f"<head><script>{probe}</script>", 1)
    # A window of its own is never narrower than 500 pixels.
    frame = f'<iframe style="width: {width}px; height: 900px" srcdoc='
    shown = tmp_path / "shown.html"
    shown.write_text(f'<!doctype html>{frame}"{html.escape(text)}"></iframe>')
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu"]
    command += [f"--user-data-dir={tmp_path / 'user'}", "--enable-logging=stderr"]
    command += ["--window-size=1500,1000", "--virtual-time-budget=60000"]
    done = subprocess.run(
        [*command, "--dump-dom", shown.as_uri()],
        capture_output=True,
        text=True,
        timeout=400,  # a busy machine
        check=True,
    )
    messages = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    assert [m for m in messages if not any(h in m for h in HARMLESS)] == []
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    seen = json.loads(html.unescape(found[1]))
    assert [e for e in seen["errors"] if not any(h in e for h in HARMLESS)] == []
    assert seen["width"] == width
    assert seen["overflow"] <= 0  # nothing is wider than the frame
    assert seen["titles"][:3] == ["method (seeds)", "mean of the last 5", "last"]
    rows = [["CE (1)", "25.80", "9.00"], ["GradTail (1)", "40.00", "50.00"]]
    assert [row[:3] for row in seen["tables"][0]] == rows
    # The largest first after two clicks: by number, where by text 9 were larger.
    assert [row[:3] for row in seen["sorted"]] == rows[::-1]
    assert len(seen["tables"]) == 3
    # Two of both methods, two of GradTail, one of CE.
    assert len(seen["charts"]) == 5
    assert all(w > 300 and h >= 300 for w, h in seen["charts"])
    method, epoch, value = seen["hover"][:3]
    assert method in ("CE", "GradTail")
    assert 1 <= float(epoch) <= 6
    assert 5 <= float(value) <= 60
    assert all(size > 0 for size in seen["images"])
