from __future__ import annotations

import json

import pytest

from sifa_zoo.datasets.reading import read_videos

V1 = "something-something-v1"
V2 = "something-something-v2"


def test_v1(disk, rows):
    disk.touch("20bn-something-something-v1/1/", "20bn-something-something-v1/22/", "20bn-something-something-v1/3/")
    disk.write(f"{V1}-train.csv", "1;Poking a hole\n22;Holding, then dropping\n")
    disk.write(f"{V1}-validation.csv", "3;Poking a hole\n")
    train = read_videos(disk.root, "train")
    folder = "20bn-something-something-v1"
    assert rows(train) == [(f"{folder}/1", "Poking a hole"), (f"{folder}/22", "Holding, then dropping")]
    assert (train.class_names, train.format) == (("Holding, then dropping", "Poking a hole"), "Something-Something V1")
    disk.write(f"{V1}-labels.csv", "Poking a hole\nTurning\nHolding, then dropping\n")
    videos = read_videos(disk.root / f"{V1}-validation.csv")
    assert rows(videos) == [(f"{folder}/3", "Poking a hole")]
    assert videos.class_names == ("Poking a hole", "Turning", "Holding, then dropping")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1;Poking\n2\n", r"line 2: expected `id;label`, got '2' \(the test split has no labels\)"),
        ("1;Poking\n2;\n", "line 2: expected `id;label`, got '2;'"),
        ("1;Poking\n4;Poking\n", "1 of 2 videos .* do not exist: line 2: 4; --allow-missing"),
        ("1;Pushing\n", "line 1: label Pushing is not in .*labels.csv"),
    ],
)
def test_v1_that_cannot_be_used(disk, text, message):
    disk.touch("v/1/")
    disk.write(f"{V1}-train.csv", text)
    disk.write(f"{V1}-labels.csv", "Poking\nTurning\n")
    disk.refuses(message, disk.root, "train")


def test_other_files_that_are_called_v1_are_not_taken_for_it(disk, rows):
    disk.touch("a.mp4", "7/")
    file = disk.write("gestures-v1-train.csv", "path,label\na.mp4,run\n")
    assert rows(read_videos(file)) == rows(read_videos(disk.root, "train")) == [("a.mp4", "run")]
    videos = read_videos(disk.write("gestures-v1-train.csv", "7;run\n"))
    assert (rows(videos), videos.format) == ([("7", "run")], "Something-Something V1")


def entries(**templates: str) -> str:
    return json.dumps([{"id": id_[1:], "label": "a thing", "template": text} for id_, text in templates.items()])


@pytest.mark.parametrize("prefix", [f"{V2}-", "labels/"])
def test_v2(disk, rows, prefix):
    disk.touch("videos/1.webm", "videos/22.webm", "videos/3.mp4")
    disk.write(f"{prefix}train.json", entries(_1="Putting [something] on [something else]", _22="Turning [something]"))
    disk.write(f"{prefix}validation.json", entries(_3="Turning [something]"))
    train = read_videos(disk.root, "train")
    assert rows(train) == [
        ("videos/1.webm", "Putting something on something else"),
        ("videos/22.webm", "Turning something"),
    ]
    assert train.format == "Something-Something V2"
    numbers = {"Turning something": "0", "Poking": "1", "Putting something on something else": "10"}
    disk.write(f"{prefix}labels.json", json.dumps(numbers))
    videos = read_videos(disk.root / f"{prefix}validation.json")
    assert (rows(videos), videos.class_names) == ([("videos/3.mp4", "Turning something")], tuple(numbers))


@pytest.mark.parametrize(
    ("text", "labels", "message"),
    [
        (
            '[{"id": "1", "template": "Turning [a]"}, {"id": "2"}]',
            {},
            "entry 2: expected id and template, got .*test split",
        ),
        ('[{"id": "1", "template": "Turning [a]"}, 5]', {}, "entry 2: expected id and template, got 5"),
        (entries(_1="Turning [a]", _4="Turning [a]"), {}, "1 of 2 videos .* do not exist: entry 2: 4; --allow-missing"),
        (entries(_1="Turning [a]"), {"Poking": "0"}, "entry 1: label Turning a is not in .*labels.json"),
        (entries(_1="Turning [a]"), {"Turning a": "x"}, "has classes without a number: Turning a"),
        (entries(_1="Turning [a]"), {"Turning a": "0", "b": "0"}, "gives one number to two classes"),
        ('{"template": 1}', {}, "expected a JSON list in .*train.json"),
        ('["template"', {}, "cannot read .*train.json as JSON"),
    ],
)
def test_v2_that_cannot_be_used(disk, text, labels, message):
    disk.touch("v/1.webm")
    disk.write(f"{V2}-train.json", text.replace('"template": 1', '"template": "template"'))
    if labels:
        disk.write(f"{V2}-labels.json", json.dumps(labels))
    file = disk.root / f"{V2}-train.json"
    disk.refuses(message, file, "train")
