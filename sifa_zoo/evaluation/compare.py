"""Two evaluations side by side: figures over the same videos, settings that differ, classes and videos that changed."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any, TypeAlias

from sifa_zoo.evaluation.figures import FIGURES, figure_text, is_complete
from sifa_zoo.evaluation.outcomes import SEPARATOR, VideoRow
from sifa_zoo.evaluation.pages import render
from sifa_zoo.evaluation.results import Results, read_results

Pair: TypeAlias = tuple[VideoRow, VideoRow]  # the rows of a video in both evaluations
ClassChange: TypeAlias = tuple[str, int, float, float]  # class, videos, accuracy in the first, and in the second

_SHOWN = 20  # rows of a table on a terminal
_FACTS = ("run", "arch", "weights_sha256", "data", "root", "format", "protocol", "videos", "expected")


@dataclass(frozen=True)
class Comparison:
    """How two evaluations of the same videos differ.

    `figures` has both values per key of `FIGURES`, over the `num_videos` that both evaluated; `classes` is sorted, the
    largest change first; `gained` and `lost` hold both rows of each video that only the second, or only the first,
    classified correctly.
    """

    results: tuple[Results, Results]
    num_videos: int
    figures: dict[str, tuple[float, float]]
    settings: dict[str, tuple[Any, Any]]
    classes: list[ClassChange]
    gained: list[Pair]
    lost: list[Pair]

    @property
    def p_value(self) -> float:
        """The two-sided p-value of the exact sign test on the videos that changed from right to wrong or back."""
        changed, fewer = len(self.gained) + len(self.lost), min(len(self.gained), len(self.lost))
        return min(1.0, 2 * sum(math.comb(changed, k) for k in range(fewer + 1)) / 2**changed)


def compare(first: str | os.PathLike[str], second: str | os.PathLike[str], *, common: bool = False) -> Comparison:
    """Compare two folders of `sifa-zoo eval --output`.

    Args:
        first: A folder, or its `result.json`.
        second: Likewise.
        common: If they evaluated different videos, compare only those in both.

    Raises:
        ValueError: If a folder cannot be read, the videos differ and `common` is not set, or a label differs.
    """
    results = read_results(first), read_results(second)
    tables = [_evaluated(result) for result in results]
    shared = [path for path in tables[0] if path in tables[1]]
    same = len(shared) == len(tables[0]) == len(tables[1])
    if not same and not (common and shared):
        counts = f"{first} has {len(tables[0])} videos, {second} has {len(tables[1])}, {len(shared)} are common"
        way_out = "compare those with --common" if shared else "evaluate both on the same data"
        raise ValueError(f"figures over different videos cannot be compared: {counts}; {way_out}")
    pairs = [(tables[0][path], tables[1][path]) for path in shared]
    if clash := next(((a, b) for a, b in pairs if a["label"] != b["label"]), None):
        labels = f"{clash[0]['label']} in {first}, {clash[1]['label']} in {second}"
        raise ValueError(f"the labels differ: {clash[0]['path']} is {labels}; evaluate both on the same data")
    multi_label = results[0].result.get("multi_label", False)
    classes = _classes(pairs, multi_label=multi_label)
    return Comparison(
        results,
        num_videos=len(pairs),
        figures=_own_figures(*results) if same else _common_figures(pairs, classes, multi_label=multi_label),
        settings=_differences(*results),
        classes=classes,
        gained=[(a, b) for a, b in pairs if not _is_right(a) and _is_right(b)],
        lost=[(a, b) for a, b in pairs if _is_right(a) and not _is_right(b)],
    )


def comparison_text(comparison: Comparison) -> str:
    """The comparison for a terminal."""
    videos, classes = _video_rows(comparison.gained + comparison.lost), _class_rows(comparison)
    lines = [f"{name}: {_title(result)}" for name, result in zip("AB", comparison.results, strict=True)]
    lines += ["", f"{'over ' + _over(comparison):34} {'A':>10} {'B':>10} {'B - A':>10}"]
    lines += [f"{name:34} {a:>10} {b:>10} {change:>10}" for name, a, b, change in _figure_rows(comparison)]
    lines += ["", _changed(comparison)]
    lines += [f"  {path} ({label}): {a} -> {b}" for path, label, a, b in videos[:_SHOWN]]
    lines += ["", "classes that gained or lost" if classes else "no class gained or lost"]
    lines += [f"  {name:32} {count:>6} {a:>9} % {b:>9} % {change:>8}" for name, count, a, b, change in classes[:_SHOWN]]
    lines += ["", "settings that differ" if comparison.settings else "no setting differs"]
    lines += [f"  {name}: {a} | {b}" for name, (a, b) in comparison.settings.items()]
    return "\n".join(lines)


def comparison_html(comparison: Comparison) -> str:
    """The comparison as a self-contained page."""
    a, b = comparison.results
    return render(
        "comparison.html",
        title=f"{a.folder.name} and {b.folder.name}",
        results={"A": _title(a), "B": _title(b)},
        over=_over(comparison),
        figures=_figure_rows(comparison),
        changed=_changed(comparison),
        videos={"right only in B": _video_rows(comparison.gained), "right only in A": _video_rows(comparison.lost)},
        classes=_class_rows(comparison),
        settings=[(name, *values) for name, values in comparison.settings.items()],
    )


def _evaluated(result: Results) -> dict[tuple[str, int], VideoRow]:
    """The evaluated videos by path and, since a list may repeat a path, by how often it came before."""
    times: Counter[str] = Counter()
    evaluated: dict[tuple[str, int], VideoRow] = {}
    for row in result.videos:
        if not row["error"]:
            evaluated[row["path"], times[row["path"]]] = row
            times[row["path"]] += 1
    return evaluated


def _is_right(row: VideoRow) -> bool:
    return row["correct"] == "1"


def _is_among_best(row: VideoRow, *, multi_label: bool) -> bool:
    best = {value for name, value in row.items() if name[:3] == "top"}
    return not best.isdisjoint(_labels(row, multi_label=multi_label))


def _labels(row: VideoRow, *, multi_label: bool) -> list[str]:
    if not multi_label:
        return [row["label"]]
    return row["label"].split(SEPARATOR) if row["label"] else []


def _classes(pairs: Sequence[Pair], *, multi_label: bool) -> list[ClassChange]:
    """Name, videos and both accuracies, in percent, of each class; the largest change first."""
    counts: Counter[str] = Counter()
    right: tuple[Counter[str], Counter[str]] = Counter(), Counter()
    for pair in pairs:
        for label in _labels(pair[0], multi_label=multi_label):
            counts[label] += 1
            for side in (0, 1):
                right[side][label] += _is_right(pair[side])
    rows = [(name, n, 100 * right[0][name] / n, 100 * right[1][name] / n) for name, n in counts.items()]
    return sorted(rows, key=lambda row: -abs(row[3] - row[2]))


def _own_figures(first: Results, second: Results) -> dict[str, tuple[float, float]]:
    """The figures of both results, which are over the same videos."""
    a, b = first.result, second.result
    return {key: (a[key], b[key]) for key in FIGURES if None not in (a.get(key), b.get(key))}


def _common_figures(
    pairs: Sequence[Pair], classes: Sequence[ClassChange], *, multi_label: bool
) -> dict[str, tuple[float, float]]:
    """The figures of both results over the videos that they have in common, as far as the rows give them."""

    def shares(is_hit: Callable[[VideoRow], bool]) -> tuple[float, float]:
        return 100 * fmean(is_hit(a) for a, _ in pairs), 100 * fmean(is_hit(b) for _, b in pairs)

    figures = {"top1": shares(_is_right), "top5": shares(partial(_is_among_best, multi_label=multi_label))}
    if not multi_label:
        figures["mean_class_accuracy"] = fmean(a for _, _, a, _ in classes), fmean(b for _, _, _, b in classes)
    return figures


def _differences(first: Results, second: Results) -> dict[str, tuple[Any, Any]]:
    flat = []
    for result in (first.result, second.result):
        facts = {name: result.get(name) for name in _FACTS} | result["settings"]
        flat.append(facts | {f"version of {name}": version for name, version in result.get("versions", {}).items()})
    names = dict.fromkeys([*flat[0], *flat[1]])
    return {name: (flat[0].get(name), flat[1].get(name)) for name in names if flat[0].get(name) != flat[1].get(name)}


def _title(result: Results) -> str:
    values = result.result
    status = "" if is_complete(values) else f" - INCOMPLETE, {values['videos']} of {values['expected']} videos"
    return f"{result.folder}, {values['arch']} on {values['data']}, {values['protocol']}{status}"


def _over(comparison: Comparison) -> str:
    counts = [len([row for row in result.videos if not row["error"]]) for result in comparison.results]
    common = "" if set(counts) == {comparison.num_videos} else f" common of {counts[0]} and {counts[1]}"
    return f"{comparison.num_videos}{common} videos"


def _changed(comparison: Comparison) -> str:
    gained, lost = len(comparison.gained), len(comparison.lost)
    if not gained + lost:
        return "no video changed from right to wrong or back"
    return f"{gained} videos are right only in B, {lost} only in A (exact sign test: p = {comparison.p_value:.2g})"


def _figure_rows(comparison: Comparison) -> list[tuple[str, str, str, str]]:
    rows = []
    for key, (a, b) in comparison.figures.items():
        name, unit = FIGURES[key]
        rows.append((name, figure_text(key, a), figure_text(key, b), f"{b - a:+.2f}" if unit else f"{b - a:+.4f}"))
    return rows


def _video_rows(pairs: Sequence[Pair]) -> list[tuple[str, str, str, str]]:
    return [(a["path"], a["label"], a["top1"], b["top1"]) for a, b in pairs]


def _class_rows(comparison: Comparison) -> list[tuple[str, int, str, str, str]]:
    return [(name, n, f"{a:.2f}", f"{b:.2f}", f"{b - a:+.2f}") for name, n, a, b in comparison.classes if a != b]
