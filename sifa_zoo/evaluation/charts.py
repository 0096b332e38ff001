"""Charts: the curve of a training, a confusion matrix, the bars of a prediction.

They are figures of matplotlib, which is imported when something is drawn. It is used through its objects alone, without
pyplot or a backend, and with its own defaults: settings of a user could spoil a picture, or need LaTeX for it. So save
figures with `png` or `write_picture`.
"""

from __future__ import annotations

import io
import os
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DRAWING = threading.RLock()  # since matplotlib's settings are those of the process
_DPI = 100
_LONGEST = 32  # letters of a name
_MANY_EPOCHS = 40  # with more, the points would hide the line
_NAMED = 40  # with more classes there is no room for names
_COUNTED = 20  # with more there is no room for counts
_FRAME, _GAP, _COLUMNS = 112, 4, 8  # pixels, pixels, frames per row
_BAR = 30  # pixels
_OWN_FONT = "DejaVu Sans"  # comes with matplotlib
_BOXES = ("Last Resort", ".LastResort")  # fonts with a box for every letter
_LINE_ENDS = ("Cc", "Zl", "Zp")  # Unicode's categories of control characters and separators of lines
_FROM_RIGHT = ("R", "AL")  # Unicode's classes of letters that are read from right to left
_INK, _FAINT, _GRID, _COLOURS = "#333333", "#eeeeee", "#e3e8ee", ("#1f77b4", "#d95f02")
_LIGHT, _DARK = np.array([247, 250, 253]), np.array([8, 64, 129])


@contextmanager
def _defaults() -> Iterator[None]:
    """Draws as matplotlib does out of the box."""
    import matplotlib.style

    with _DRAWING, matplotlib.style.context("default"):
        yield


def need_matplotlib() -> None:
    """Imports matplotlib, which refuses some settings of the environment: before long work, not after it.

    Raises:
        ValueError: If it does, for example because of `MPLBACKEND`.
    """
    import matplotlib.style  # noqa: F401


@_defaults()
def draw_curve(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Losses, from 0, and validation accuracies, from 0 to 100 %, over the epochs of `log.csv`."""
    accuracies = {"val top-1 (%)": "val_top1", "val top-5 (%)": "val_top5"}
    if "val_map" in rows[0]:
        accuracies = {"val mAP (%)": "val_map"}
    figure = _figure(900, 640)
    margins = {"left": 0.07, "right": 0.82, "top": 0.96, "bottom": 0.08, "hspace": 0.25}
    upper, lower = figure.subplots(2, 1, gridspec_kw=margins)
    epochs = [int(row["epoch"]) for row in rows]
    marker = "o" if len(rows) <= _MANY_EPOCHS else ""
    for axes, curves in ((upper, {"train loss": "train_loss", "val loss": "val_loss"}), (lower, accuracies)):
        for colour, (label, column) in zip(_COLOURS, curves.items(), strict=False):
            values = [row[column] for row in rows]
            axes.plot(epochs, values, color=colour, linewidth=2, marker=marker, label=label, clip_on=False)
        axes.locator_params("x", integer=True, min_n_ticks=1)
        axes.set_xlabel("epoch", loc="right")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color=_FAINT)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
    lower.set_ylim(0, 100)
    return figure


@_defaults()
def draw_confusion(matrix: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Counts `(C, C)`; the larger a cell's share of its row, the true class, the darker it is.

    Up to 40 classes are labelled by name, and up to 20 have the counts in the cells. With more than 40, the axes are
    numbered from 0, and cells are shaded by the square root of the share, so that rare confusions show. The cells, of
    whole pixels, fill the figure: save it with `bbox_inches="tight"`, which makes room for what stands around them.
    """
    count = len(matrix)
    cell = 44 if count <= 10 else 32 if count <= _COUNTED else 20 if count <= _NAMED else max(2, 800 // count)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    weights = shares if count <= _NAMED else np.sqrt(shares)
    colours = (_LIGHT + weights[..., None] * (_DARK - _LIGHT)).round().astype(np.uint8)
    figure = _figure(cell * count, cell * count)
    axes = figure.add_axes((0, 0, 1, 1))
    edges = np.arange(count + 1) - 0.5
    axes.pcolormesh(edges, edges, colours, edgecolors=_GRID, linewidth=0.7 if count <= _NAMED else 0, clip_on=False)
    axes.invert_yaxis()
    if count <= _NAMED:
        names, style = lettering(class_names)
        axes.set_xticks(range(count), names, rotation=90, **style)
        axes.set_yticks(range(count), names, **style)
    if count <= _COUNTED:
        for row, column in zip(*matrix.nonzero(), strict=True):
            text = str(matrix[row, column])
            colour = "white" if shares[row, column] > 0.5 else _INK
            axes.text(column, row, text, color=colour, fontsize=min(10, cell / len(text)), ha="center", va="center")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("true class in rows, predicted in columns", loc="left", fontsize=10)
    return figure


@_defaults()
def draw_prediction(frames: np.ndarray, scores: Sequence[tuple[str, float]]) -> Figure:
    """The frames row by row, and below them the scores as bars.

    Args:
        frames: uint8 RGB `(T, H, W, 3)`.
        scores: Class names with scores in [0, 1], as `predict` returns them.

    Raises:
        ValueError: If there are no frames or no scores.
    """
    if not len(frames) or not scores:
        raise ValueError(f"a picture needs frames and scores, got {len(frames)} frames and {len(scores)} scores")
    pitch, places = _FRAME + _GAP, range(len(scores))
    bars = len(scores) * _BAR + 4 * _GAP
    height = -(-len(frames) // _COLUMNS) * pitch + bars + 2 * _GAP
    figure = _figure(_COLUMNS * pitch + _GAP, height)
    for i, frame in enumerate(frames):
        row, column = divmod(i, _COLUMNS)
        square = ImageOps.fit(Image.fromarray(frame), (_FRAME, _FRAME))
        figure.figimage(np.asarray(square), _GAP + column * pitch, height - (row + 1) * pitch)
    figure.set_layout_engine("constrained", rect=(0, 0, 1, bars / height))
    axes = figure.subplots()
    names, style = lettering(name for name, _ in scores)
    whole = axes.barh(places, 1, height=0.6, color=_FAINT)
    axes.bar_label(whole, [f"{100 * score:.1f} %" for _, score in scores], padding=8, fontsize=11, color=_INK)
    axes.barh(places, [score for _, score in scores], height=0.6, color=_COLOURS[0])
    axes.set_yticks(places, names, fontsize=11, color=_INK, **style)
    axes.set(xlim=(0, 1), ylim=(len(scores) - 0.5, -0.5), xticks=[])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


@_defaults()
def png(figure: Figure, **options: Any) -> bytes:
    """A figure as PNG, with a palette, which makes it a fifth as large; options as for `savefig`."""
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI, **options)
    Image.open(drawn).convert("RGB").quantize().save(small, "PNG", optimize=True)
    return small.getvalue()


@_defaults()
def write_picture(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure to a file in the format that its suffix names."""
    figure.savefig(path, dpi=_DPI)


def lettering(names: Iterable[str]) -> tuple[list[str], dict[str, Any]]:
    r"""Names as they can be drawn, and the properties of the text that draws them.

    A name is cut to 32 letters. Each letter comes from the first font that has it, matplotlib's own before those of the
    system; one that no font has, or that ends a line, is escaped (`\u4f60`), and before matplotlib 3.11, which would
    reverse them, so are those read from right to left. Nothing is taken for mathematics.

    Example:
        >>> lettering(["to\nwave"])[0]
        ['to\\nwave']
    """
    import matplotlib

    names = list(names)
    letters = {letter for letter in "".join(names) if unicodedata.category(letter) not in _LINE_ENDS}
    if matplotlib.__version_info__ < (3, 11):
        letters = {letter for letter in letters if unicodedata.bidirectional(letter) not in _FROM_RIGHT}
    families, letters = _fonts(letters)
    return [_plain(name, letters) for name in names], {"family": families, "parse_math": False, "usetex": False}


def _plain(name: str, letters: set[str]) -> str:
    """A name, cut, in which all but these letters are escaped."""
    text = ""
    for letter in name:
        text += letter if letter in letters else letter.encode("unicode_escape").decode()
        if len(text) > _LONGEST:
            return f"{text[: _LONGEST - 1]}…"
    return text


def _fonts(letters: set[str]) -> tuple[list[str], set[str]]:
    """Families of installed fonts that together have the letters, and those letters that they have."""
    from matplotlib.font_manager import FontProperties, fontManager, get_font

    usual = ("normal", "normal", 400)
    installed = {font.name for font in fontManager.ttflist if (font.style, font.stretch, font.weight) == usual}
    families, lacking = [_OWN_FONT], letters
    for family in [_OWN_FONT, *sorted(installed)]:
        if not lacking or family.startswith(_BOXES):
            continue
        font = get_font(fontManager.findfont(FontProperties(family=[family]), fallback_to_default=False))
        found = {letter for letter in lacking if font.get_char_index(ord(letter))}
        families += [family] if found else []
        lacking = lacking - found
    return families, letters - lacking


def _figure(width: float, height: float) -> Figure:
    """An empty figure, its size in pixels."""
    from matplotlib.figure import Figure

    return Figure((width / _DPI, height / _DPI), dpi=_DPI)
