from __future__ import annotations

import pytest

from sifa_zoo.config import ReadConfig
from sifa_zoo.datasets.reading import read_splits, read_videos


@pytest.mark.parametrize(
    "text",
    [
        "path,label\na.mp4,run\nb c.mp4,high jump\n",
        "\ufefflabel;id;Video\r\nrun;1;a.mp4\r\n\r\nhigh jump;2;b c.mp4\r\n",
        'filename\tclass_name\tlabel\n"a.mp4"\trun\t1\n"b c.mp4"\thigh jump\t0\n',
        "sep=;\r\npath;label\r\na.mp4;run\r\nb c.mp4;high jump\r\n",
        "\ufeffsep=,\npath,label\na.mp4,run\nb c.mp4,high jump\n",
        'file,category\n"a.mp4" ,"run"\n b c.mp4, high jump \n',
    ],
)
def test_tables(disk, rows, text):
    disk.touch("a.mp4", "b c.mp4")
    videos = read_videos(disk.write("t.csv", text))
    assert rows(videos) == [("a.mp4", "run"), ("b c.mp4", "high jump")]
    assert (videos.class_names, videos.format) == (("high jump", "run"), "CSV with a header")


def test_cells_with_delimiters_are_quoted(disk, rows):
    disk.touch("a, b.mp4", "c.mp4")
    text = 'path,label\n"a, b.mp4","say ""hello"", loudly"\nc.mp4,run\n'
    assert rows(read_videos(disk.write("t.csv", text)))[0] == ("a, b.mp4", 'say "hello", loudly')


@pytest.mark.parametrize(
    "text",
    [
        "path,labels\na.mp4,run;jump\nb.mp4,jump\nc.mp4,\n",
        "path,labels\na.mp4,run | jump\nb.mp4,jump\nc.mp4,\n",
        'path,labels\na.mp4,"[""run"", ""jump""]"\nb.mp4,"[""jump""]"\nc.mp4,[]\n',
        "path,split,jump,run\na.mp4,train,1,1\nb.mp4,train,1,0\nc.mp4,train,0,0\n",
        "path,jump,run\na.mp4,1.0,1.0\nb.mp4,1.0,0.0\nc.mp4,0.0,0.0\n",
    ],
)
def test_several_labels(disk, rows, text):
    disk.touch("a.mp4", "b.mp4", "c.mp4")
    videos = read_videos(disk.write("t.csv", text))
    assert rows(videos) == [("a.mp4", {"run", "jump"}), ("b.mp4", {"jump"}), ("c.mp4", set())]
    assert (videos.class_names, videos.multi_label) == (("jump", "run"), True)
    assert videos.format == "CSV with a header, several labels per video"
    other = read_videos(disk.root / "t.csv", class_names=("run", "walk", "jump"))
    assert other.labels.tolist() == [[True, False, True], [False, False, True], [False, False, False]]


def test_a_name_with_a_separator_is_one_label_where_it_is_known(disk, rows):
    disk.touch("a.mp4", "b.mp4")
    file = disk.write("t.csv", "path,label\na.mp4,hop|skip\nb.mp4,run\n")
    assert rows(read_videos(file, class_names=("hop|skip", "run"))) == [("a.mp4", "hop|skip"), ("b.mp4", "run")]


def test_a_column_of_splits_chooses_rows(disk, rows):
    disk.touch("a.mp4", "b.mp4", "c.mp4")
    file = disk.write("t.csv", "path,label,split\na.mp4,run,Train\nb.mp4,run,test\nc.mp4,jump,train\n")
    assert rows(read_videos(file, "train")) == [("a.mp4", "run"), ("c.mp4", "jump")]
    assert rows(read_videos(file, "val")) == [("b.mp4", "run")]
    disk.refuses("t.csv has splits, name one of them: test, train", file)
    assert {name: len(videos) for name, videos in read_splits(file).items()} == {"train": 2, "val": 1}
    file = disk.write("t.csv", "path,label,split\na.mp4,run,train\nb.mp4,run,extra\n")
    disk.refuses("t.csv has no row of the val split; its column of splits says only extra, train", file, "val")


def test_split_tables(disk, rows):
    disk.touch("a.mp4", "b.mp4")
    disk.write("my-train.csv", "path,label\na.mp4,run\n")
    disk.write("my-val.csv", "path,label\nb.mp4,run\n")
    assert rows(read_videos(disk.root, "train")) == [("a.mp4", "run")]
    assert rows(read_videos(disk.root, "val")) == [("b.mp4", "run")]


@pytest.mark.parametrize("header", ["path,label", "path,run,jump"])
def test_the_only_table_of_a_folder(disk, rows, header):
    disk.touch("videos/a.mp4", "videos/b.mp4")
    cells = ("run", "jump") if "label" in header else ("1,0", "0,1")
    disk.write("videos.csv", f"{header}\nvideos/a.mp4,{cells[0]}\nvideos/b.mp4,{cells[1]}\n")
    disk.write("classes.txt", "run\njump\n")
    for videos in (
        read_videos(disk.root),
        read_videos(disk.root, "train"),
        read_videos(disk.root, how=ReadConfig(format="csv")),
    ):
        assert (videos.class_names, len(videos)) == (("run", "jump"), 2)


def test_lists_and_folders_by_split_come_before_a_table(disk, rows):
    disk.touch("train/run/a.mp4", "run/b.mp4")
    disk.write("all.csv", "path,label\nrun/b.mp4,jump\n")
    assert rows(read_videos(disk.root, "train")) == [("train/run/a.mp4", "run")]
    disk.write("lists/train.txt", "../run/b.mp4 run\n")
    disk.write("lists/all.csv", "path,label\n../run/b.mp4,jump\n")
    assert rows(read_videos(disk.root / "lists", "train")) == [("run/b.mp4", "run")]


def test_tables_of_other_things_leave_class_folders_as_they_are(disk, rows):
    disk.touch("run/a.mp4", "jump/b.mp4")
    disk.write("lengths.csv", "path,seconds\nrun/a.mp4,2\n")
    assert read_videos(disk.root).format == "class folders"
    disk.write("lengths.csv", "path,label\nrun/a.mp4,walk\n")
    disk.write("more.csv", "path,label\nrun/a.mp4,walk\n")
    assert read_videos(disk.root).format == "class folders"


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("name,label\na.mp4,run\n", ["t.csv has no column path or .*; its columns are name, label"]),
        ("path,klass\na.mp4,run\n", ["t.csv has no column class_name or .*; its columns are path, klass"]),
        ("path,Path,label\na.mp4,a.mp4,run\n", ["t.csv has columns of the same name: path"]),
        ("path,label\n", ["no rows in .*t.csv; its columns are path, label"]),
        ("sep=;\npath;label\na.mp4\n", ["t.csv, line 3: expected 2 cells, got 1"]),
        (
            "path,label\na.mp4,run\na.mp4\n\na.mp4,run,1\n",
            ["2 faulty lines", "line 3: expected 2 cells, got 1", "line 5: "],
        ),
        (
            "path,label\na.mp4,\n,run\n",
            ["2 faulty lines", "line 2: the label is missing", "line 3: the path is missing"],
        ),
        ("path,run,jump\na.mp4,1,0\na.mp4,yes,0\n", ["line 3: expected 0 or 1 for the class run, got 'yes'"]),
        ("path,label\na.mp4,run\nb.mp4,run\n", ["1 of 2 videos in .* do not exist: line 3: b.mp4"]),
    ],
)
def test_unusable_tables_are_refused(disk, text, messages):
    disk.touch("a.mp4")
    disk.refuses(messages, disk.write("t.csv", text))
