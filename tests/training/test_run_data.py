from __future__ import annotations

from pathlib import Path

import pytest
from tiny_videos import write_videos

from sifa_zoo.config import ClipConfig, ReadConfig, TrainConfig
from sifa_zoo.datasets.videos import DataError
from sifa_zoo.evaluation.evaluate import evaluate_run
from sifa_zoo.training.run_config import RunConfig
from sifa_zoo.training.run_data import read_data


def config(data: Path, **settings) -> RunConfig:
    return RunConfig(str(data), "sifa_net_nano", ClipConfig(), TrainConfig(), **settings)


@pytest.fixture
def numbered(tmp_path, data):
    """Lists of the videos of `data` with numbers as labels, blue 0 and red 1."""
    for split in ("train", "val"):
        paths = sorted(data.glob(f"{split}/*/*.mp4"))
        lines = [f"{path} {int(path.parent.name == 'red')}\n" for path in paths]
        (tmp_path / f"{split}.txt").write_text("".join(lines))
    return tmp_path


def test_classes_in_the_order_of_the_checkpoint(run_folder, tmp_path):
    videos = write_videos(tmp_path / "videos", num_train=1, num_val=1)
    for split in ("train", "val"):
        (videos / split / "blue").rename(videos / split / "violet")
    train, val = read_data(config(videos), run=tmp_path / "run")
    assert train.class_names == val.class_names == ("red", "violet")
    (tmp_path / "map.csv").write_text("violet,blue\n")
    settings = {"checkpoint": str(run_folder), "reading": ReadConfig(remap=str(tmp_path / "map.csv"))}
    train, val = read_data(config(videos, **settings), run=tmp_path / "run")
    assert train.class_names == val.class_names == ("blue", "red")
    assert (train.labels.tolist(), val.labels.tolist()) == ([1, 0], [1, 0])


def test_numbers_as_places_in_the_checkpoint(run_folder, numbered):
    settings = {"checkpoint": str(run_folder), "reading": ReadConfig(remap="index")}
    train, val = read_data(config(numbered, **settings), run=numbered / "run")
    assert train.class_names == val.class_names == ("blue", "red")
    train, _ = read_data(config(numbered, checkpoint=str(run_folder)), run=numbered / "run")
    assert train.class_names == ("0", "1")  # other classes, for which the head is re-initialised


def test_evaluation_asks_what_numbers_mean(run_folder, numbered, data):
    options = {"workers": 0, "device": "cpu"}
    with pytest.raises(DataError, match=r"are numbers \(0, 1\), but the classes are names \(blue, red\)"):
        evaluate_run(run_folder, numbered, **options)
    by_index = evaluate_run(run_folder, numbered, reading={"remap": "index"}, **options)
    assert by_index["top1"] == evaluate_run(run_folder, data, **options)["top1"]


def test_missing_videos_on_request(numbered, tmp_path):
    with (numbered / "train.txt").open("a") as file:
        file.write("gone.mp4 0\n")
    with pytest.raises(DataError, match="1 of 7 videos in .*; --allow-missing leaves them out"):
        read_data(config(numbered), run=tmp_path / "run")
    train, _ = read_data(config(numbered, reading=ReadConfig(allow_missing=True)), run=tmp_path / "run")
    assert (len(train), train.num_missing, train.format) == (6, 1, "list of `path label` lines")


def test_validation_labels_are_of_the_kind_of_training_labels(numbered, data, tmp_path):
    several, one = numbered / "train.csv", numbered / "val.csv"
    train, val = (sorted(data.glob(f"{split}/*/*.mp4")) for split in ("train", "val"))
    several.write_text("path,label\n" + "".join(f"{path},{path.parent.name};blue\n" for path in train))
    one.write_text("path,label\n" + "".join(f"{path},{path.parent.name}\n" for path in val))
    videos = read_data(config(several, val=str(one)), run=tmp_path / "run")
    assert [video.labels.shape for video in videos] == [(6, 2), (4, 2)]
    with pytest.raises(DataError, match="validation videos have several labels each, but training videos have one"):
        read_data(config(one, val=str(several)), run=tmp_path / "run")


def test_training_videos_by_other_paths_do_not_validate(numbered, data, tmp_path, capsys):
    (tmp_path / "link").symlink_to(data)
    train = (numbered / "train.txt").read_text()
    (numbered / "val.txt").write_text(train.replace(str(data), "link").replace("/train/", "/train/../train/"))
    with pytest.raises(DataError, match="has no validation videos besides the training videos"):
        read_data(config(numbered), run=tmp_path / "run")
    val = (numbered / "val.txt").read_text() + "".join(f"{path} 0\n" for path in data.glob("val/blue/*.mp4"))
    (numbered / "val.txt").write_text(val)
    read_data(config(numbered), run=tmp_path / "run")
    assert "warning: 6 validation videos are in training too" in capsys.readouterr().err


def test_classes_that_differ_in_case_only_are_warned_of(numbered, tmp_path, capsys):
    for split in ("train", "val"):
        file = numbered / f"{split}.txt"
        file.write_text(file.read_text().replace(" 0\n", " Wave\n").replace(" 1\n", " wave\n"))
    read_data(config(numbered), run=tmp_path / "run")
    assert "warning: the classes Wave and wave differ in case only" in capsys.readouterr().err


def test_an_epoch_smaller_than_an_update_is_warned_of(data, tmp_path, capsys):
    train = TrainConfig(batch_size=8, lr_batch=4)
    read_data(RunConfig(str(data), "sifa_net_nano", ClipConfig(), train), run=tmp_path / "run")
    assert "an epoch has 6 clips, fewer than the 8 of an update; the rates are scaled to 8" in capsys.readouterr().err
