from __future__ import annotations

import io
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from PIL import Image

from sifa_zoo.evaluation.charts import draw_confusion, draw_curve, draw_prediction, lettering, png, write_picture

BLUE, ORANGE = (31, 119, 180), (217, 95, 2)  # of the first and the second curve of a panel
HOSTILE = [
    *("日本", "नमस्ते", "العربية", "עברית", "🎾 tennis", r"$\frac{$", "$x_1$", "a_b^c", "two\nlines", "<b>&amp;", ""),
    *("a long name " * 10, "W" * 200, "\ud800", "\u202eright to left", "no\u2028end", "\x00\x1b[0m", "\uffff"),
]


def _pixels(figure: Figure, **options: Any) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png(figure, **options))).convert("RGB")).astype(int)


def _confusion_pixels(matrix: np.ndarray, names: Sequence[str]) -> np.ndarray:
    return _pixels(draw_confusion(matrix, names), bbox_inches="tight")


def _near(pixels: np.ndarray, colour: tuple[int, int, int], tolerance: int = 0) -> np.ndarray:
    return (abs(pixels - colour) <= tolerance).all(-1)


def _texts(labels: Any) -> list[str]:
    return [label.get_text() for label in labels]


@pytest.fixture
def own_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the fonts that come with matplotlib are installed."""
    own = [font for font in fontManager.ttflist if font.fname.startswith(matplotlib.get_data_path())]
    monkeypatch.setattr(fontManager, "ttflist", own)


@pytest.mark.parametrize("epochs", [1, 2, 3, 40, 50])
@pytest.mark.parametrize(("accuracies", "lower"), [(("val_top1", "val_top5"), {BLUE, ORANGE}), (("val_map",), {BLUE})])
def test_a_curve_for_each_column(epochs: int, accuracies: tuple[str, ...], lower: set[tuple[int, int, int]]) -> None:
    columns = {"train_loss": 1.0, "val_loss": 2.0, **dict(zip(accuracies, (40.0, 80.0), strict=False))}
    figure = draw_curve([{"epoch": epoch, **columns} for epoch in range(1, epochs + 1)])
    pixels = _pixels(figure)
    assert pixels.shape == (640, 900, 3)
    for half, expected in ((pixels[:320, :750], {BLUE, ORANGE}), (pixels[320:, :750], lower)):  # without the legend
        assert {colour for colour in (BLUE, ORANGE) if _near(half, colour, 40).any()} == expected
    above, below = figure.axes
    assert (above.get_ylim()[0], below.get_ylim()) == (0, (0, 100))
    assert above.get_ylim()[1] > 2
    shown = [tick for tick in above.get_xticks() if above.get_xlim()[0] <= tick <= above.get_xlim()[1]]
    assert shown
    assert all(tick == round(tick) for tick in shown)
    assert above.lines[0].get_marker() == ("o" if epochs <= 40 else "")
    assert _texts(above.get_legend().texts) == ["train loss", "val loss"]
    named = {"val_top1": "val top-1 (%)", "val_top5": "val top-5 (%)", "val_map": "val mAP (%)"}
    assert _texts(below.get_legend().texts) == [named[column] for column in accuracies]


def test_figures_that_there_are_none_of_leave_a_gap() -> None:
    nan = float("nan")
    rows = [{"epoch": epoch, "train_loss": 1.0, "val_loss": nan, "val_map": nan} for epoch in (1, 2, 3)]
    assert _near(_pixels(draw_curve(rows)), BLUE).any()


@pytest.mark.parametrize("count", [2, 10, 20, 40, 41, 174, 400])
def test_a_confusion_matrix_has_a_cell_per_pair(count: int) -> None:
    matrix = np.diag(np.arange(1, count + 1)).astype(np.int64)
    names = [f"class number {i}, a name too long to fit" for i in range(count)]
    figure = draw_confusion(matrix, names)
    content, (axes,) = png(figure, bbox_inches="tight"), figure.axes
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert _near(pixels, (8, 64, 129)).any(0).sum() >= 2 * count  # the diagonal, at least two pixels per class
    assert max(pixels.shape) < 1100
    assert len(content) < 100_000
    assert axes.get_title(loc="left") == "true class in rows, predicted in columns"
    for labels in (_texts(axes.get_xticklabels()), _texts(axes.get_yticklabels())):
        if count <= 40:
            assert [label[:15] for label in labels] == [name[:15] for name in names]
        else:
            assert {"0", "20"} <= set(labels) or {"0", "50"} <= set(labels)
            assert len(labels) < 15
    assert _texts(axes.texts) == ([str(i) for i in range(1, count + 1)] if count <= 20 else [])


def test_a_cell_is_as_dark_as_its_share_of_the_row() -> None:
    pixels = _confusion_pixels(np.array([[30, 10], [0, 0]]), ["a", "b"])
    left, top = np.argwhere(_near(pixels, (68, 110, 160))).min(0)[::-1]  # three quarters: 247 + 0.75 * (8 - 247)
    assert pixels[top + 4, left + 4 + 44, 0] == 187  # one quarter
    assert pixels[top + 4 + 44, left + 4, 0] == 247  # nothing
    many = np.eye(100, dtype=np.int64) * 3
    many[0, 50] = 9
    assert (_confusion_pixels(many, [""] * 100)[:, :, 0] == 40).any()  # rare ones show: 247 + sqrt(0.75) * -239


@pytest.mark.parametrize(("num_frames", "rows"), [(4, 1), (8, 1), (16, 2), (20, 3)])
def test_frames_and_bars(num_frames: int, rows: int) -> None:
    frames = np.zeros((num_frames, 40, 60, 3), np.uint8)
    frames[0] = (255, 0, 0)
    scores = [("waving", 0.75), ("a name that is far too long for its place " * 3, 0.25)]
    figure = draw_prediction(frames, scores)
    pixels = _pixels(figure)
    assert pixels.shape[:2] == (rows * 116 + 16 + 2 * 30 + 8, 932)
    assert tuple(pixels[60, 60]) == (255, 0, 0)
    assert _near(pixels[: rows * 116], (0, 0, 0)).sum() == (num_frames - 1) * 112**2
    lengths = _near(pixels, BLUE)[rows * 116 :].sum(1)
    assert max(lengths) > 200
    assert sorted(set(lengths[lengths > 0])) == [pytest.approx(max(lengths) / 3, abs=2), max(lengths)]
    assert np.flatnonzero(lengths == max(lengths)).max() < np.flatnonzero(lengths == min(lengths[lengths > 0])).min()
    assert _texts(figure.axes[0].texts) == ["75.0 %", "25.0 %"]


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs frames and scores"):
        draw_prediction(np.zeros((0, 8, 8, 3), np.uint8), [("a", 1.0)])
    with pytest.raises(ValueError, match="needs frames and scores"):
        draw_prediction(np.zeros((4, 8, 8, 3), np.uint8), [])


@pytest.mark.usefixtures("own_fonts")
@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        ("waving", "waving"),
        ("évasion, $x_1$ \\n", "évasion, $x_1$ \\n"),
        ("日本 run", r"\u65e5\u672c run"),
        ("🎾\n\t\u2028\ud800", r"\U0001f3be\n\t\u2028\ud800"),
        ("a name that is much longer than there is room for", "a name that is much longer than…"),
        ("日本" * 10, r"\u65e5\u672c\u65e5\u672c\u65e5\…"),
        ("x" * 32, "x" * 32),
        ("", ""),
    ],
)
def test_names_as_they_can_be_drawn(name: str, drawn: str) -> None:
    assert lettering([name])[0] == [drawn]


@pytest.mark.usefixtures("own_fonts")
@pytest.mark.parametrize(("version", "drawn"), [((3, 10, 9), r"a \u05e2\u05d1 b"), ((3, 11, 0), "a עב b")])
def test_no_name_is_reversed(version: tuple[int, ...], drawn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matplotlib, "__version_info__", version)
    assert lettering(["a עב b"])[0] == [drawn]


def _install_font(folder: Path, letter: str) -> None:
    """A font with one letter, a black square."""
    pen = TTGlyphPen(None)
    for step, corner in enumerate([(0, 0), (0, 700), (700, 700), (700, 0)]):
        (pen.lineTo if step else pen.moveTo)(corner)
    pen.closePath()
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({ord(letter): "square"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (700, 0), "square": (700, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(folder / "squares.ttf")
    fontManager.addfont(folder / "squares.ttf")


@pytest.mark.usefixtures("own_fonts")
def test_a_font_of_the_system_where_that_helps(tmp_path: Path) -> None:
    scores = [("日", 0.5), ("a", 0.5)]
    assert lettering(["日"])[0] == [r"\u65e5"]
    without = _pixels(draw_prediction(np.zeros((1, 8, 8, 3), np.uint8), scores))
    _install_font(tmp_path, "日")
    assert lettering(["a日本"])[0] == [r"a日\u672c"]
    pixels = _pixels(draw_prediction(np.zeros((1, 8, 8, 3), np.uint8), scores))
    names = pixels[130:, :60], without[130:, :60]
    assert [_near(part, (0x33, 0x33, 0x33)).sum() > 80 for part in names] == [True, False]  # a square of 11 x 11


@pytest.mark.parametrize("fonts", ["own", "of the system"])
def test_any_name_can_be_drawn(fonts: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> None:
    if fonts == "own":
        request.getfixturevalue("own_fonts")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as that a font lacks a letter
        matrix = _confusion_pixels(np.eye(len(HOSTILE), dtype=np.int64), HOSTILE)
        scores = [(name, 0.5) for name in HOSTILE]
        bars = _pixels(draw_prediction(np.zeros((1, 8, 8, 3), np.uint8), scores))
    assert caplog.records == []
    assert max(matrix.shape) < 1400
    lengths = _near(bars, BLUE).sum(1)
    assert len(set(lengths[lengths > 0])) == 1
    assert max(lengths) > 100


def test_threads_draw_the_same() -> None:
    def draw(_: int) -> bytes:
        return png(draw_confusion(np.eye(12, dtype=np.int64), HOSTILE[:12]), bbox_inches="tight")

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(draw, range(8)))) == 1


def test_settings_of_the_user_change_nothing(tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    scores = [("wave", 0.5), ("clap", 0.5)]

    def draw() -> tuple[bytes, bytes]:
        write_picture(draw_prediction(np.zeros((1, 8, 8, 3), np.uint8), scores), tmp_path / "p.png")
        return png(draw_confusion(np.eye(2, dtype=np.int64), ["a", "b"])), (tmp_path / "p.png").read_bytes()

    usual = draw()
    with matplotlib.rc_context({"savefig.dpi": 300, "savefig.facecolor": "black", "text.usetex": True}):
        assert draw() == usual
        assert matplotlib.rcParams["savefig.dpi"] == 300


def test_an_environment_that_matplotlib_refuses_stops_before_the_work(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sifa_zoo.cli", "finetune", tmp_path, "--output", tmp_path / "run"]
    done = subprocess.run(command, env={**os.environ, "MPLBACKEND": "none"}, capture_output=True, text=True)
    assert done.returncode == 2
    assert "backend" in done.stderr


LAZY = """
import sys
from sifa_zoo.evaluation.charts import draw_curve, png
import sifa_zoo.evaluation.compare
assert not {"matplotlib", "jinja2"} & set(sys.modules)
png(draw_curve([{"epoch": 1, "train_loss": 1, "val_loss": 1, "val_map": 1}]))
assert "matplotlib.pyplot" not in sys.modules
"""


def test_matplotlib_is_imported_when_something_is_drawn() -> None:
    subprocess.run([sys.executable, "-c", LAZY], check=True)
