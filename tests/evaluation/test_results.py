"""The folder of an evaluation: tables, status and report, with names that try to break them."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from colour_model import Redness, loader_of
from tiny_videos import write_video, write_videos

from sifa_zoo.datasets.videos import VideoList
from sifa_zoo.evaluation.evaluate import evaluate_run, score_videos
from sifa_zoo.evaluation.figures import summarise
from sifa_zoo.evaluation.outcomes import confusion_csv, video_rows
from sifa_zoo.evaluation.results import describe, read_results, result_json, write_results
from sifa_zoo.evaluation.scores import VideoScores

RED, BLUE = (200, 30, 30), (30, 30, 200)
EVIL = '<script>alert("&")</script>'
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Checks that tags are closed in order, and keeps tags and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def _table(file: Path) -> list[dict[str, str]]:
    with open(file, encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


@pytest.fixture
def evaluated(run_folder: Path, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A run evaluated on two good videos, one in the wrong folder, and one that is none."""
    videos = write_videos(tmp_path / "videos", num_train=1, num_val=1)
    (videos / "val" / "red" / f"{EVIL.replace('/', '_')}.mp4").write_bytes(b"no video")
    write_video(videos / "val" / "red" / "wrong.mp4", color=BLUE)
    options = {"num_clips": 2, "workers": 0, "device": "cpu", "output": tmp_path / "out"}
    return tmp_path / "out", evaluate_run(run_folder, videos, **options)


def test_the_confusion_table_holds_the_counts() -> None:
    names = ['a, "b"', "c\nd"]
    rows = list(csv.reader(io.StringIO(confusion_csv(torch.tensor([[3, 1], [0, 2]]), names).decode())))
    assert rows == [["true / predicted", *names], [names[0], "3", "1"], [names[1], "0", "2"]]


def test_the_files(evaluated: tuple[Path, dict[str, Any]]) -> None:
    folder, result = evaluated
    names = ["classes.csv", "confusion.csv", "confusion.png", "report.html", "result.json", "videos.csv"]
    assert sorted(path.name for path in folder.iterdir()) == names
    written = json.loads((folder / "result.json").read_text())
    assert written["status"] == "INCOMPLETE"
    assert (written["videos"], written["expected"]) == (3, 4)
    assert written["top1"] == result["top1"] == pytest.approx(200 / 3)
    assert written["protocol"] == "4x1, 32, 2x1 views, softmax mean"
    assert written["settings"].items() >= {"num_clips": 2, "precision": "fp32", "split": "val", "num_frames": 4}.items()
    assert len(written["weights_sha256"]) == 64
    videos = {row["path"]: row for row in _table(folder / "videos.csv")}
    wrong = videos["val/red/wrong.mp4"]
    assert (wrong["label"], wrong["correct"], wrong["top1"], wrong["view1"], wrong["view2"]) == (
        *("red", "0", "blue"),
        *("blue", "blue"),
    )
    assert float(wrong["score1"]) + float(wrong["score2"]) == pytest.approx(1, abs=1e-5)
    bad = next(row for row in videos.values() if row["error"])
    assert (bad["label"], bad["top1"], bad["correct"]) == ("red", "", "")
    assert bad["error"] == "not a video that FFmpeg can open"
    assert _table(folder / "classes.csv") == [
        {"class": "blue", "count": "1", "correct": "1", "accuracy": "100.00", "confused_with": "", "times": ""},
        {"class": "red", "count": "2", "correct": "1", "accuracy": "50.00", "confused_with": "blue", "times": "1"},
    ]


def test_the_report(evaluated: tuple[Path, dict[str, Any]]) -> None:
    content = (evaluated[0] / "report.html").read_text()
    assert len(content) < 300_000
    page = Page(content)
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe")]
    pictures = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) == 3  # the curve, the confusion matrix, and the one mistake
    assert all(str(attrs["src"]).startswith("data:image/") and attrs["alt"] for attrs in pictures)
    assert not re.search(r"(?:src|href)=\"(?!data:)|url\(|@import", content)
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags
    for text in ("INCOMPLETE", "Not evaluated: 1 of 4 videos", EVIL.replace("/", "_"), "wrong.mp4", "66.67 %"):
        assert text in page.text


def test_a_complete_result_says_so(run_folder: Path, data: Path, tmp_path: Path) -> None:
    evaluate_run(run_folder, data, workers=0, device="cpu", output=tmp_path)
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "complete"
    page = Page((tmp_path / "report.html").read_text())
    assert "INCOMPLETE" not in page.text
    assert "None: every evaluated video was classified correctly." in page.text


def _evaluate(videos: VideoList, folder: Path, run: Path) -> None:
    rows = score_videos(Redness(len(videos.class_names)), loader_of(videos), device="cpu")
    result = summarise(rows, videos) | {"protocol": "4x1"}
    result |= describe(run, folder, videos=videos, arch="redness", settings={"num_clips": 1})
    write_results(folder / "out", result, rows=rows, videos=videos)


def test_names_are_text_everywhere(run_folder: Path, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", color=BLUE)
    _evaluate(VideoList((path,), (1,), (EVIL, f"{EVIL}2")), tmp_path, run_folder)
    page = Page((tmp_path / "out" / "report.html").read_text())
    assert "script" not in {tag for tag, _ in page.tags}
    assert f"predicted: {EVIL}" in page.text
    assert read_results(tmp_path / "out").videos[0]["label"] == f"{EVIL}2"


def test_multi_label(run_folder: Path, tmp_path: Path) -> None:
    paths = [write_video(tmp_path / f"{i}.mp4", color=color) for i, color in enumerate((RED, BLUE, RED))]
    labels = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=bool)
    _evaluate(VideoList(paths, [0, 1, 2], ("any", "red", "never")), tmp_path, run_folder)
    assert (tmp_path / "out" / "confusion.png").exists()  # of an earlier result, which must not outlive it
    _evaluate(VideoList(paths, labels, ("any", "red", "never"), missing=("b.mp4",)), tmp_path, run_folder)
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"result.json", "videos.csv", "classes.csv", "report.html"}
    assert [row["label"] for row in _table(tmp_path / "out" / "videos.csv")] == ["any | red", "any", "", ""]
    assert [row["average_precision"] for row in _table(tmp_path / "out" / "classes.csv")] == ["66.67", "50.00", ""]
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["map"] == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)
    page = Page((tmp_path / "out" / "report.html").read_text())
    assert "b.mp4does not exist, left out on request" in page.text
    assert "is: none of the classes" in page.text


def test_many_classes_fold_away(run_folder: Path, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", color=BLUE)
    _evaluate(VideoList((path,), (0,), [f"class {i}" for i in range(400)]), tmp_path, run_folder)
    content = (tmp_path / "out" / "report.html").read_text()
    assert "380 further classes" in Page(content).text
    assert len(content) < 300_000


def test_a_figure_that_there_is_none_of_is_null() -> None:
    result = json.loads(result_json({"map": float("nan"), "top1": 1.0, "videos": 1, "expected": 1}))
    assert result == {"map": None, "top1": 1.0, "videos": 1, "expected": 1, "status": "complete"}


def test_paths_elsewhere_stay_as_they_are(tmp_path: Path) -> None:
    videos = VideoList((tmp_path / "data" / "a.mp4", "/elsewhere/b.mp4"), (0, 0), ("x", "y"))
    none = torch.empty(0, dtype=torch.int64)
    rows = video_rows(VideoScores(none, torch.empty(0), torch.empty(0), none), videos, root=str(tmp_path / "data"))
    assert [row["path"] for row in rows] == ["a.mp4", "/elsewhere/b.mp4"]
    assert [row["error"] for row in rows] == ["not evaluated"] * 2


def test_folders_that_hold_no_result(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no folder of `sifa-zoo eval --output FOLDER`: No such file"):
        read_results(tmp_path)
    (tmp_path / "videos.csv").write_text("path\na.mp4\n")
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(ValueError, match="result.json is damaged"):
        read_results(tmp_path / "result.json")
    (tmp_path / "result.json").write_text('{"protocol": ""}')
    with pytest.raises(ValueError, match="it lacks arch, class_names, error, expected"):
        read_results(tmp_path)
