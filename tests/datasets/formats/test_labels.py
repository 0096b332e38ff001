"""Numbers and names as labels, class lists and remapping."""

from __future__ import annotations

import pytest

from sifa_zoo.config import ReadConfig
from sifa_zoo.datasets.reading import read_videos

CLASSES = ("walk", "run", "jump")


@pytest.fixture
def listed(disk):
    """Writes a list of a video per label."""

    def write(*labels: str):
        names = [f"{i}.mp4" for i in range(len(labels))]
        disk.touch(*names)
        return disk.write("l.txt", "".join(f"{name}\t{label}\n" for name, label in zip(names, labels, strict=True)))

    return write


def labels(videos) -> list[str]:
    return [videos.class_names[label] for label in videos.labels]


def test_names_decide_not_their_order(listed):
    videos = read_videos(listed("run", "jump"), class_names=CLASSES)
    assert (labels(videos), videos.class_names) == (["run", "jump"], CLASSES)


def test_numbers_may_be_names(listed):
    videos = read_videos(listed("2", "0"), class_names=("2", "1", "0"))
    assert videos.labels.tolist() == [0, 2]


def test_numbers_are_not_taken_for_names(disk, listed):
    message = r"are numbers \(0, 2\), but the classes are names \(walk, run, jump\)"
    disk.refuses([message, "--remap index", "--remap FILE"], listed("2", "0"), class_names=CLASSES)
    assert labels(read_videos(listed("2", "0"), class_names=CLASSES, how=ReadConfig(remap="index"))) == ["jump", "walk"]


def test_years_are_names_where_a_list_says_so(disk, listed):
    file = listed("1999", "2005")
    disk.refuses("would make 2,006 classes, only 2 of them with videos", file)
    disk.write("classes.TXT", "1999\n2005\n")
    assert read_videos(file).class_names == ("1999", "2005")


def test_a_few_of_many_classes(listed):
    assert len(read_videos(listed("3", "700")).class_names) == 701  # as of a part of Kinetics
    numbers = tuple(map(str, range(3000)))
    assert labels(read_videos(listed("1999", "2005"), class_names=numbers)) == ["1999", "2005"]  # as weights say


@pytest.mark.parametrize("given", [("0.0", "2.0"), ("0", "2.00"), ("0.", "002")])
def test_numbers_as_pandas_writes_them(disk, listed, given):
    assert read_videos(listed(*given)).labels.tolist() == [0, 2]
    assert labels(read_videos(listed(*given), class_names=CLASSES, how=ReadConfig(remap="index"))) == ["walk", "jump"]
    assert read_videos(listed(*given), class_names=given).labels.tolist() == [0, 1]  # names, as a model says
    disk.write("classes.txt", "walk\nrun\njump\n")
    assert labels(read_videos(listed(*given))) == ["walk", "jump"]


def test_versions_are_names(disk, listed):
    assert read_videos(listed("1.0", "1.5")).class_names == ("1.0", "1.5")
    disk.refuses("labels count from 0, got -1.0", listed("0.0", "-1.0"))
    disk.refuses("labels count from 0 without large gaps, got 9999", listed("0", "9" * 5000))


@pytest.mark.parametrize(
    ("name", "text", "numbers"),
    [
        ("classes.txt", "\ufeffwalk\r\nrun fast\n\njump\n", "120"),
        ("classInd.txt", "3 jump\n1 walk\n2 run fast\n", "231"),
    ],
)
def test_class_lists_name_the_numbers(disk, listed, name, text, numbers):
    disk.write(name, text)
    for file in (listed(*numbers), listed("run fast", "jump", "walk")):
        videos = read_videos(file)
        assert labels(videos) == ["run fast", "jump", "walk"]
        assert videos.class_names == ("walk", "run fast", "jump")
    videos = read_videos(listed(*numbers), class_names=("jump", "walk", "run fast"))
    assert labels(videos) == ["run fast", "jump", "walk"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("classes.txt", "walk\nrun\n", "l.txt, line 2: label 2 is not in .*classes.txt .0 to 1."),
        ("classInd.txt", "1 walk\n2 run\n", "l.txt, line 1: label 0 is not in .*classInd.txt .1 to 2."),
        ("classes.txt", "walk\nrun\nwalk\n", "classes.txt, line 3: walk comes twice"),
        ("classInd.txt", "1 walk\nrun\n", "classInd.txt, line 2: expected `number name`, got 'run'"),
        ("classes.txt", "", "line 1: expected the names of the classes, one per line, got an empty file"),
    ],
)
def test_class_lists_that_do_not_fit_are_refused(disk, listed, name, text, message):
    disk.write(name, text)
    disk.refuses(message, listed("0", "2"))


def test_classes_that_weights_lack_are_listed(disk, listed):
    message = r"not among the 3 classes \(walk, run, jump\): class 00 .line 1., .*class 19 .line 20. and 5 more"
    disk.refuses(message, listed(*(f"class {i:02d}" for i in range(25))), class_names=CLASSES)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("map.csv", "going,walk\r\n2,jump\r\n"),
        ("map.txt", "going\twalk\n2\tjump\n"),
        ("map.json", '{"going": "walk", "2": "jump"}'),
    ],
)
def test_remap_by_file(disk, listed, name, text):
    file, remap = listed("going", "2", "run", "going"), disk.write(name, text)
    how = ReadConfig(remap=str(remap))
    assert labels(read_videos(file, class_names=CLASSES, how=how)) == ["walk", "jump", "run", "walk"]
    assert read_videos(file, how=how).class_names == ("jump", "run", "walk")  # without weights it merges


@pytest.mark.parametrize(
    ("given", "remap", "message"),
    [
        (("0", "3"), "index", r"labels beyond the 3 classes .*: 3; places count from 0"),
        (("0", "run"), "index", "--remap index needs numbers as labels, but .* has run"),
        (("going",), "going,fly\nrun\ngoing,walk\n", "line 1: fly is not among the 3 classes"),
        (("going",), "going,fly\nrun\ngoing,walk\n", "line 2: expected `label,class`, got 'run'"),
        (("going",), "going,fly\nrun\ngoing,walk\n", "line 3: label going comes twice"),
        (("going", "fly"), "going,walk\n", r"not among the 3 classes \(walk, run, jump\): fly .line 2.; "),
    ],
)
def test_remaps_that_do_not_fit_are_refused(disk, listed, given, remap, message):
    remap = remap if remap == "index" else disk.write("map.csv", remap)
    disk.refuses(message, listed(*given), class_names=CLASSES, remap=remap)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("index", None, "--remap index needs weights with class names"),
        ("nowhere.csv", None, "cannot read .*nowhere.csv: No such file"),
        ("map.json", "[1]", "expected a JSON object of label and class"),
        ("map.json", "{", "cannot read .*map.json as JSON"),
    ],
)
def test_remap_needs_what_it_names(disk, listed, name, text, message):
    if text:
        disk.write(name, text)
    disk.refuses(message, listed("0", "1"), remap=name if name == "index" else str(disk.root / name))
