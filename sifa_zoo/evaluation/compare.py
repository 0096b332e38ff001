"""Two evaluations side by side: figures over the same videos, settings that differ, classes and videos that changed."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sifa_zoo.evaluation.page import folded, page, paragraph, section, table
from sifa_zoo.evaluation.report import FIGURES, figure_text
from sifa_zoo.evaluation.results import SEPARATOR, Results, VideoRow, read_results
from sifa_zoo.evaluation.scores import is_complete

_SHOWN = 20
_FACTS = ("run", "arch", "weights_sha256", "data", "root", "format", "protocol", "videos", "expected")


@dataclass(frozen=True)
class Comparison:
    """How two evaluations of the same videos differ.

    `figures` has both values per key of `FIGURES`, over the `num_videos` that both evaluated; `classes` has rows
    `(class, videos, accuracy in the first, accuracy in the second)`, largest change first; `gained` and `lost` hold
    both rows of each video that only the second, or only the first, classified correctly.
    """

    first: Results
    second: Results
    num_videos: int
    figures: dict[str, tuple[float, float]]
    settings: dict[str, tuple[Any, Any]]
    classes: list[tuple[str, int, float, float]]
    gained: list[tuple[VideoRow, VideoRow]]
    lost: list[tuple[VideoRow, VideoRow]]

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
    if clash := next((pair for pair in pairs if pair[0]["label"] != pair[1]["label"]), None):
        labels = f"{clash[0]['label']} in {first}, {clash[1]['label']} in {second}"
        raise ValueError(f"the labels differ: {clash[0]['path']} is {labels}; evaluate both on the same data")
    return Comparison(
        *results,
        num_videos=len(pairs),
        figures=_figures(results, pairs, same=same),
        settings=_differences(*results),
        classes=_classes(results[0], pairs),
        gained=[pair for pair in pairs if not _right(pair[0]) and _right(pair[1])],
        lost=[pair for pair in pairs if _right(pair[0]) and not _right(pair[1])],
    )


def comparison_text(comparison: Comparison) -> str:
    """The comparison for a terminal."""
    lines = [f"{name}: {_title(result)}" for name, result in zip("AB", _both(comparison), strict=True)]
    lines += ["", f"{'over ' + _over(comparison):34} {'A':>10} {'B':>10} {'B - A':>10}"]
    lines += [f"{row[0]:34} {row[1]:>10} {row[2]:>10} {row[3]:>10}" for row in _figure_rows(comparison)]
    lines += ["", _changed(comparison)]
    lines += [f"  {_video_text(pair)}" for pair in _few(comparison.gained + comparison.lost)]
    moved = [row for row in comparison.classes if row[2] != row[3]]
    lines += ["", "classes that gained or lost" if moved else "no class gained or lost"]
    lines += [f"  {name:32} {count:>6} {a:>9.2f} % {b:>9.2f} % {b - a:>+8.2f}" for name, count, a, b in _few(moved)]
    lines += ["", "settings that differ" if comparison.settings else "no setting differs"]
    lines += [f"  {name}: {a} | {b}" for name, (a, b) in comparison.settings.items()]
    return "\n".join(lines)


def comparison_html(comparison: Comparison) -> str:
    """The comparison as a self-contained page."""
    a, b = _both(comparison)
    moved = [(n, c, f"{x:.2f}", f"{y:.2f}", f"{y - x:+.2f}") for n, c, x, y in comparison.classes if x != y]
    settings = [(name, *values) for name, values in comparison.settings.items()]
    return page(
        f"{a.folder.name} and {b.folder.name}",
        paragraph(f"A: {_title(a)}"),
        paragraph(f"B: {_title(b)}"),
        section(
            f"Figures over {_over(comparison)}",
            table(["figure", "A", "B", "B - A"], _figure_rows(comparison), numbers=(1, 2, 3)),
        ),
        section(
            "Videos that changed",
            paragraph(_changed(comparison)),
            _video_table("right only in B", comparison.gained),
            _video_table("right only in A", comparison.lost),
        ),
        section(
            "Classes that gained or lost",
            table(["class", "videos", "A %", "B %", "B - A"], moved, numbers=(1, 2, 3, 4))
            if moved
            else paragraph("None."),
        ),
        section(
            "Settings that differ",
            table(["setting", "A", "B"], settings) if settings else paragraph("None."),
        ),
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


def _both(comparison: Comparison) -> tuple[Results, Results]:
    return comparison.first, comparison.second


def _right(row: VideoRow) -> bool:
    return row["correct"] == "1"


def _labels(row: VideoRow, *, multi_label: bool) -> list[str]:
    if not multi_label:
        return [row["label"]]
    return row["label"].split(SEPARATOR) if row["label"] else []


def _figures(
    results: tuple[Results, Results], pairs: Sequence[tuple[VideoRow, VideoRow]], *, same: bool
) -> dict[str, tuple[float, float]]:
    """Figures over the compared videos: the results' own if both are of exactly these, else from the rows."""
    if same:
        a, b = (result.result for result in results)
        return {key: (a[key], b[key]) for key in FIGURES if None not in (a.get(key), b.get(key))}
    multi_label = results[0].result.get("multi_label", False)
    names = ["top1", "top5"] + ([] if multi_label else ["mean_class_accuracy"])
    figures: dict[str, list[float]] = {name: [] for name in names}
    for side in (0, 1):
        rows = [pair[side] for pair in pairs]
        figures["top1"].append(100 * sum(map(_right, rows)) / len(rows))
        figures["top5"].append(100 * sum(_among_best(row, multi_label=multi_label) for row in rows) / len(rows))
        if not multi_label:
            accuracies = _class_accuracies(rows, multi_label=False).values()
            figures["mean_class_accuracy"].append(sum(accuracies) / len(accuracies))
    return {key: (a, b) for key, (a, b) in figures.items()}


def _among_best(row: VideoRow, *, multi_label: bool) -> bool:
    best = {value for name, value in row.items() if name[:3] == "top"}
    return not best.isdisjoint(_labels(row, multi_label=multi_label))


def _class_accuracies(rows: Sequence[VideoRow], *, multi_label: bool) -> dict[str, float]:
    """Accuracy per class, in percent."""
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for row in rows:
        for label in _labels(row, multi_label=multi_label):
            total[label] += 1
            right[label] += _right(row)
    return {label: 100 * right[label] / count for label, count in total.items()}


def _classes(result: Results, pairs: Sequence[tuple[VideoRow, VideoRow]]) -> list[tuple[str, int, float, float]]:
    multi_label = result.result.get("multi_label", False)
    a, b = (_class_accuracies([pair[side] for pair in pairs], multi_label=multi_label) for side in (0, 1))
    counts = Counter(label for row, _ in pairs for label in _labels(row, multi_label=multi_label))
    rows = [(name, counts[name], a[name], b[name]) for name in a]
    return sorted(rows, key=lambda row: -abs(row[3] - row[2]))


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
    counts = [len([row for row in result.videos if not row["error"]]) for result in _both(comparison)]
    common = "" if set(counts) == {comparison.num_videos} else f" common of {counts[0]} and {counts[1]}"
    return f"{comparison.num_videos}{common} videos"


def _figure_rows(comparison: Comparison) -> list[tuple[str, str, str, str]]:
    rows = []
    for key, (a, b) in comparison.figures.items():
        difference = f"{b - a:+.2f}" if FIGURES[key][1] else f"{b - a:+.4f}"
        rows.append((FIGURES[key][0], figure_text(key, a), figure_text(key, b), difference))
    return rows


def _changed(comparison: Comparison) -> str:
    gained, lost = len(comparison.gained), len(comparison.lost)
    if not gained + lost:
        return "no video changed from right to wrong or back"
    return f"{gained} videos are right only in B, {lost} only in A (exact sign test: p = {comparison.p_value:.2g})"


def _video_text(pair: tuple[VideoRow, VideoRow]) -> str:
    return f"{pair[0]['path']} ({pair[0]['label']}): {pair[0]['top1']} -> {pair[1]['top1']}"


def _video_table(title: str, pairs: Sequence[tuple[VideoRow, VideoRow]]) -> str:
    if not pairs:
        return ""
    rows = [(a["path"], a["label"], a["top1"], b["top1"]) for a, b in pairs]
    return folded(f"{len(rows)} {title}", table(["video", "label", "A", "B"], rows, caption=title))


def _few(rows: Sequence[Any]) -> Sequence[Any]:
    return rows[:_SHOWN]
