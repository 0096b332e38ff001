from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from sifa_zoo.evaluation.compare import compare, comparison_html, comparison_text

Videos = dict[str, tuple[str, str]]  # path -> label and prediction


def _write(folder: Path, videos: Videos, *, bad: tuple[str, ...] = (), **changes: object) -> Path:
    """A result folder of a model with the classes a, b and c."""
    folder.mkdir()
    with open(folder / "videos.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "correct", "top1", "score1", "top2", "score2", "error"])
        for path, (label, best) in videos.items():
            other = "b" if best == "a" else "a"
            row = [path, label, int(label == best), best, "0.9", other, "0.05", ""]
            writer.writerow([path, label, "", "", "", "", "", "gone"] if path in bad else row)
    right = sum(label == best for label, best in videos.values())
    result = {"top1": 100 * right / len(videos), "loss": 0.5, "videos": len(videos) - len(bad)}
    result |= {"expected": len(videos), "arch": "nano", "data": "demo", "run": str(folder), "protocol": "4x1"}
    result |= {"class_names": ["a", "b", "c"], "settings": {"num_clips": 1}, "versions": {"torch": "2.10"}}
    (folder / "result.json").write_text(json.dumps(result | changes))
    return folder


FIRST = {"1.mp4": ("a", "a"), "2.mp4": ("a", "b"), "3.mp4": ("b", "a"), "4.mp4": ("c", "c")}
SECOND = FIRST | {"2.mp4": ("a", "a"), "3.mp4": ("b", "b"), "4.mp4": ("c", "a")}


def test_the_same_videos(tmp_path: Path) -> None:
    first = _write(tmp_path / "one", FIRST)
    second = _write(tmp_path / "two", SECOND, settings={"num_clips": 3}, loss=0.25)
    found = compare(first, second / "result.json")
    assert found.num_videos == 4
    assert found.figures == {"top1": (50, 75), "loss": (0.5, 0.25)}
    assert found.settings == {"run": (str(first), str(second)), "num_clips": (1, 3)}
    assert sorted(found.classes) == [("a", 2, 50, 100), ("b", 1, 0, 100), ("c", 1, 100, 0)]
    assert [pair[0]["path"] for pair in found.gained] == ["2.mp4", "3.mp4"]
    assert [pair[0]["path"] for pair in found.lost] == ["4.mp4"]
    assert found.p_value == 1
    text = comparison_text(found)
    for part in ("over 4 videos", "+25.00", "-0.2500", "2.mp4 (a): b -> a", "num_clips: 1 | 3", "2 videos are right"):
        assert part in text
    html = comparison_html(found)
    for part in ("1 right only in A", "+100.00", "<td>3</td>", "viewport"):
        assert part in html


def test_sign_test(tmp_path: Path) -> None:
    one = _write(tmp_path / "one", {str(i): ("a", "b") for i in range(10)})
    two = _write(tmp_path / "two", {str(i): ("a", "b" if i < 4 else "a") for i in range(10)})
    assert compare(one, two).p_value == pytest.approx(2 / 2**6)
    assert compare(one, one).p_value == 1
    assert "no video changed" in comparison_text(compare(one, one))


def test_other_videos_are_refused_or_left_out(tmp_path: Path) -> None:
    first = _write(tmp_path / "one", FIRST)
    second = _write(tmp_path / "two", {**SECOND, "5.mp4": ("a", "a")}, bad=("1.mp4",))
    with pytest.raises(ValueError, match=r"one has 4 videos, .*two has 4, 3 are common; compare those with --common"):
        compare(first, second)
    found = compare(first, second, common=True)
    assert found.num_videos == 3
    assert found.figures["top1"] == pytest.approx((100 / 3, 200 / 3))
    assert found.figures["top5"] == pytest.approx((100, 200 / 3))
    assert found.figures["mean_class_accuracy"] == pytest.approx((100 / 3, 200 / 3))
    text = comparison_text(found)
    assert "3 common of 4 and 4 videos" in text
    assert "INCOMPLETE, 4 of 5 videos" in text


def test_a_video_that_is_listed_twice_counts_twice(tmp_path: Path) -> None:
    folder = _write(tmp_path / "one", FIRST)
    rows = (folder / "videos.csv").read_text().splitlines()
    (folder / "videos.csv").write_text("\n".join([*rows, *rows[1:]]) + "\n")
    assert compare(folder, folder).num_videos == 8


def test_nothing_in_common(tmp_path: Path) -> None:
    first, second = _write(tmp_path / "one", FIRST), _write(tmp_path / "two", {"9.mp4": ("a", "a")})
    for common in (False, True):
        with pytest.raises(ValueError, match="0 are common; evaluate both on the same data"):
            compare(first, second, common=common)


def test_other_labels_are_refused(tmp_path: Path) -> None:
    first, second = _write(tmp_path / "one", FIRST), _write(tmp_path / "two", {**FIRST, "3.mp4": ("c", "a")})
    with pytest.raises(ValueError, match=r"the labels differ: 3.mp4 is b in .*one, c in .*two"):
        compare(first, second)


def test_names_are_text(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    first, second = (_write(tmp_path / name, {evil: ("a", best)}) for name, best in (("one", "a"), ("two", evil)))
    assert "<img" not in comparison_html(compare(first, second))
