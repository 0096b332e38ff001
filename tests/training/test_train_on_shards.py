"""Training and evaluation on WebDataset shards: what holds for lists of files holds here."""

from __future__ import annotations

import csv
import dataclasses
import json
import signal
import sys
from functools import partial
from pathlib import Path

import fsspec
import numpy as np
import pytest
import webdataset
from processes import before_update, kill_before_update, record, recorded, run_cli, send
from safetensors.torch import load_file
from tiny_videos import CLASSES, write_video

from sifa_zoo.config import ClipConfig, ReadConfig, TrainConfig
from sifa_zoo.datasets.clips import ClipCutter
from sifa_zoo.datasets.reading import read_videos_or_shards
from sifa_zoo.datasets.shard_list import ShardList
from sifa_zoo.datasets.shards import ShardDataset
from sifa_zoo.datasets.transforms import train_transform
from sifa_zoo.datasets.videos import DataError, VideoList
from sifa_zoo.evaluation.evaluate import evaluate_run
from sifa_zoo.runtime import shard_stream as module
from sifa_zoo.runtime.batches import ClipLoader, clip_loader
from sifa_zoo.runtime.checkpoint import pack_weights, read_info
from sifa_zoo.training.finetune import finetune
from sifa_zoo.training.run_config import RunConfig
from sifa_zoo.training.run_data import read_data

CLIP = ClipConfig(num_frames=4, frame_stride=1, img_size=32)
FLAGS = "--model sifa_net_nano --num-frames 4 --frame-stride 1 --img-size 32 --device cpu --warmup-epochs 0 --lr 1e-3"
COLORS = {"blue": (30, 30, 200), "red": (200, 30, 30)}
NUM_SHARDS, PER_SHARD = 6, 4


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six training and two validation shards of four videos, which also lie beside them as files, with a list."""
    root = tmp_path_factory.mktemp("data")
    lines = []
    for split, count in (("train", NUM_SHARDS), ("val", 2)):
        for shard in range(count):
            (root / "shards" / split).mkdir(parents=True, exist_ok=True)
            with webdataset.TarWriter(str(root / "shards" / split / f"{shard}.tar")) as writer:
                for i in range(PER_SHARD):
                    name, label = f"{split}{shard}_{i}", CLASSES[i % 2]
                    path = write_video(root / f"{name}.mp4", color=COLORS[label], num_frames=6, seed=7 * shard + i)
                    writer.write({"__key__": name, "mp4": path.read_bytes(), "txt": label})
                    lines += [f"{name}.mp4 {label}\n"] if split == "val" else []
    (root / "val.txt").write_text("".join(lines))
    (root / "classes.txt").write_text("blue\nred\n")
    (root / "shards" / "classes.txt").write_text("blue\nred\n")
    return root


def train(data: Path | str, output: Path, **settings: object) -> None:
    train = {"epochs": 2, "batch_size": 4, "lr": 1e-3, "warmup_epochs": 0, "workers": 0, **settings}
    finetune(data, output=output, model="sifa_net_nano", clip=CLIP, train=TrainConfig(**train), device="cpu")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run. Read it only."""
    output = tmp_path_factory.mktemp("runs") / "run"
    train(data / "shards", output)
    return output


def loader_of(data: Path, *, batch_size: int = 2, workers: int = 0, seed: int | None = 0) -> ClipLoader:
    videos = read_videos_or_shards(data / "shards", "train")
    assert isinstance(videos, ShardList)
    return clip_loader(
        videos, ClipCutter(CLIP, train_transform(CLIP), seed=seed), batch_size=batch_size, workers=workers
    )


def names(loader: ClipLoader, *, epoch: int = 0, start: int = 0) -> list[tuple[str, ...]]:
    loader.set_epoch(epoch, start=start)
    return [batch.names for batch in loader]


def test_the_run_says_what_it_reads_and_is_the_same_again(data, run, tmp_path, same_run, capsys):
    train(data / "shards", tmp_path / "again")
    same_run(run, tmp_path / "again")
    said = capsys.readouterr().out
    assert "WebDataset shards" in said
    assert "videos in shards are checked as they are read" in said
    assert json.loads((run / "config.json").read_text())["train_videos"] == 24


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_has_each_video_once_and_goes_on_anywhere(data, workers):
    loader = loader_of(data, workers=workers)
    assert len(loader) == 12
    whole = names(loader)
    assert len(whole) == 12
    videos = [name for batch in whole for name in batch]
    assert len(set(videos)) == len(videos) == NUM_SHARDS * PER_SHARD
    assert all("/train/" in name and ", sample train" in name for name in videos)
    for start in (1, 4, 7, 11, 12):
        assert names(loader, start=start) == whole[start:], start
    assert names(loader, epoch=1) != whole
    assert names(loader) == whole


def test_what_was_passed_over_is_not_decoded(data, monkeypatch):
    decoded = []
    real = ShardDataset._clips
    monkeypatch.setattr(ShardDataset, "_clips", lambda *args, **how: decoded.append(how["where"]) or real(*args, **how))
    loader = loader_of(data)
    assert [name for batch in names(loader, start=10) for name in batch] == decoded
    assert len(decoded) == 4


def test_processes_make_equally_many_steps_whatever_their_shards_hold(data, tmp_path, monkeypatch):
    videos = ShardList([*map(str, sorted((data / "shards" / "train").glob("*.tar"))[:3])], CLASSES)
    monkeypatch.setattr(module, "world_size", lambda: 2)
    taken = []
    for rank in range(2):
        monkeypatch.setattr(module, "rank", lambda rank=rank: rank)
        loader = clip_loader(videos, ClipCutter(CLIP, train_transform(CLIP), seed=0), batch_size=2)
        assert len(loader) == 3  # 12 samples for two processes: one has eight, the other four
        taken.append(names(loader))
    assert [len(batches) for batches in taken] == [3, 3]
    first, second = ([name for batch in batches for name in batch] for batches in taken)
    assert not set(first) & set(second)
    assert (len(set(first)), len(set(second))) == (6, 4)  # the latter goes over its shard again


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_run_goes_on_bit_for_bit(data, tmp_path, same_run, workers):
    flags = f"{FLAGS} --drop-rate 0.3 --batch-size 8 --epochs 2 --save-every 1 --resume auto --workers {workers}"
    unbroken, broken = tmp_path / "unbroken.jsonl", tmp_path / "broken.jsonl"

    def command(name: str) -> list[str]:
        return ["finetune", str(data / "shards"), "--output", str(tmp_path / name), *flags.split()]

    ended = run_cli(command("a"), tmp_path, arrange={0: partial(record, unbroken)})
    assert ended[0].code == 0, ended[0].text
    ended = run_cli(command("b"), tmp_path, arrange={0: kill_before_update(2)})
    assert ended[0].code == -signal.SIGKILL
    ended = run_cli(command("b"), tmp_path, arrange={0: partial(before_update, 4, partial(send, signal.SIGTERM))})
    assert "update 2 of epoch 2 is saved" in ended[0].text
    ended = run_cli(command("b"), tmp_path, arrange={0: partial(record, broken)})
    assert ended[0].code == 0, ended[0].text
    assert recorded(broken) == {update: row for update, row in recorded(unbroken).items() if update > 5}
    same_run(tmp_path / "a", tmp_path / "b")


def test_another_number_of_readers_is_warned_of(data, tmp_path):
    flags = f"{FLAGS} --batch-size 12 --epochs 1"
    command = ["finetune", str(data / "shards"), "--output", str(tmp_path / "run"), *flags.split()]
    stop = partial(before_update, 1, partial(send, signal.SIGTERM))
    run_cli([*command, "--workers", "2"], tmp_path, arrange={0: stop})
    ended = run_cli([*command, "--workers", "0", "--resume"], tmp_path)
    assert ended[0].code == 0, ended[0].text
    assert "has 2 readers of shards, not 1: the order changes" in ended[0].text


def figures(result: dict) -> list:
    return [result[name] for name in ("top1", "clip_top1", "mean_class_accuracy", "loss", "videos", "expected")]


@pytest.mark.parametrize("workers", [0, 3])
def test_evaluation_is_that_of_the_files(data, run, tmp_path, workers):
    views = {"num_clips": 2, "num_crops": 3}
    files = evaluate_run(run, data / "val.txt", workers=0, device="cpu", **views)
    shards = evaluate_run(run, data / "shards", workers=workers, device="cpu", output=tmp_path, **views)
    assert figures(shards) == pytest.approx(figures(files), abs=1e-6)
    assert (shards["videos"], shards["expected"], shards["format"]) == (8, 8, "WebDataset shards")
    with (tmp_path / "videos.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected = [f"val/{shard}.tar, sample val{shard}_{i}" for shard in range(2) for i in range(PER_SHARD)]
    assert [row["path"] for row in rows] == expected
    assert [row["label"] for row in rows] == ["blue", "red"] * 4
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "complete"


def test_weights_of_several_labels_are_scored_so(data, run, tmp_path):
    info = read_info(run)
    assert info is not None
    several = tmp_path / "several.safetensors"
    tensors = load_file(run / "best.safetensors")
    several.write_bytes(pack_weights(tensors, dataclasses.replace(info, multi_label=True)))
    of_shards, of_files = (
        evaluate_run(several, source, workers=0, device="cpu") for source in (data / "shards", data / "val.txt")
    )
    for name in ("top1", "clip_top1", "map", "loss", "videos", "expected"):
        assert of_shards[name] == pytest.approx(of_files[name], abs=1e-6)
    assert of_shards["protocol"].endswith("sigmoid mean")


def test_two_processes_evaluate_each_sample_once(data, run, tmp_path):
    results = []
    for ranks in (1, 2, 3):  # of three one has no shard
        command = ["eval", str(run), f"{data}/shards/val/{{0,1}}.tar", "--output", str(tmp_path / f"{ranks}")]
        ended = run_cli([*command, "--device", "cpu", "--workers", "0"], tmp_path / f"logs{ranks}", ranks=ranks)
        assert [one.code for one in ended] == [0] * ranks, ended[0].text
        results.append(json.loads((tmp_path / f"{ranks}" / "result.json").read_text()))
    for result in results[1:]:
        assert figures(result) == pytest.approx(figures(results[0]), abs=1e-6)
    assert (tmp_path / "2" / "videos.csv").read_text() == (tmp_path / "1" / "videos.csv").read_text()


def test_two_processes_train_with_a_list_for_validation(data, tmp_path):
    command = ["finetune", str(data / "shards" / "train"), "--val", str(data / "val.txt")]
    flags = f"{FLAGS} --batch-size 2 --epochs 1 --workers 2"
    ended = run_cli([*command, "--output", str(tmp_path / "run"), *flags.split()], tmp_path, ranks=2)
    assert [one.code for one in ended] == [0, 0], ended[0].text
    assert "warning: 6 shards cannot be divided evenly among 4 readers" in ended[0].text
    assert "epoch 1/1" in ended[0].text


def bad_shards(folder: Path, data: Path) -> Path:
    """A bad video in a shard of four, and one in validation."""
    for split, count in (("train", 4), ("val", 2)):
        (folder / split).mkdir(parents=True)
        with webdataset.TarWriter(str(folder / split / "a.tar")) as writer:
            for i in range(count):
                video = (data / f"val0_{i}.mp4").read_bytes() if i != 1 else b"no video"
                writer.write({"__key__": f"{split}{i}", "mp4": video, "txt": CLASSES[i % 2]})
    (folder / "classes.txt").write_text("blue\nred\n")
    return folder


def test_bad_videos_stop_or_are_skipped(data, run, tmp_path, capsys):
    shards = bad_shards(tmp_path / "bad", data)
    with pytest.raises(ValueError, match=r"train/a\.tar, sample train1: not a video"):
        train(shards, tmp_path / "stopped")
    train(shards, tmp_path / "skipped", skip_bad=True, epochs=1)
    output = capsys.readouterr()
    assert "sample train1: not a video" in output.err
    assert "validation is INCOMPLETE: 1 of 2 videos" in output.out
    result = evaluate_run(run, shards, workers=0, device="cpu", output=tmp_path / "out")
    assert (result["videos"], result["expected"]) == (1, 2)
    with (tmp_path / "out" / "videos.csv").open() as file:
        rows = {row["path"]: row["error"] for row in csv.DictReader(file)}
    assert rows["val/a.tar, sample val0"] == ""
    assert "not a video" in rows["val/a.tar, sample val1"]


def test_an_unlabelled_video_counts_as_a_bad_one(data, run, tmp_path, capsys):
    for split, count in (("train", 4), ("val", 2)):
        (tmp_path / "shards" / split).mkdir(parents=True)
        with webdataset.TarWriter(str(tmp_path / "shards" / split / "a.tar")) as writer:
            for i in range(count):
                label = {} if i == 1 else {"txt": CLASSES[i % 2]}
                writer.write({"__key__": f"{split}{i}", "mp4": (data / f"val0_{i}.mp4").read_bytes(), **label})
    (tmp_path / "shards" / "classes.txt").write_text("blue\nred\n")
    with pytest.raises(ValueError, match=r"train/a\.tar, sample train1: no label; expected one of cls, txt, json"):
        train(tmp_path / "shards", tmp_path / "stopped")
    train(tmp_path / "shards", tmp_path / "skipped", skip_bad=True, epochs=1)
    output = capsys.readouterr()
    assert "skipped: " in output.err
    assert "sample train1: no label" in output.err
    assert "validation is INCOMPLETE: 1 of 2 videos" in output.out
    with (tmp_path / "skipped" / "log.csv").open() as file:
        assert [row["skipped"] for row in csv.DictReader(file)] == ["1"]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unknown_label_stops_in_one_line_even_from_a_worker(data, tmp_path, workers):
    for shard in range(2):
        with webdataset.TarWriter(str(tmp_path / f"{shard}.tar")) as writer:
            for i in range(2):
                writer.write({"__key__": f"{i}", "mp4": (data / "val0_0.mp4").read_bytes(), "txt": "green"})
    videos = ShardList(tmp_path, CLASSES)
    loader = clip_loader(videos, ClipCutter(CLIP, train_transform(CLIP), seed=0), batch_size=1, workers=workers)
    with pytest.raises(DataError, match=r"^.*\.tar, sample [01] has classes that are not among the 2 classes .*green"):
        list(loader)


def test_a_loss_that_is_not_finite_names_shard_and_sample(data, tmp_path):
    with pytest.raises(ValueError, match=r"with the videos .*train/\d\.tar, sample train\d_\d, "):
        train(data / "shards", tmp_path / "run", opt="sgd", lr=1e12, clip_grad=0, epochs=3)


def test_too_few_shards(data, tmp_path, monkeypatch, capsys):
    assert loader_of(data, workers=8).num_workers == 6
    assert "6 shards are too few for 1 x 8 workers: 6 of each 8 are started" in capsys.readouterr().err
    with pytest.raises(DataError, match="24 samples do not make a batch of 32 for each of 1 processes"):
        loader_of(data, batch_size=32)
    monkeypatch.setattr(module, "world_size", lambda: 7)
    with pytest.raises(DataError, match="6 shards cannot be divided among 7 processes; make at least one for each"):
        loader_of(data)
    assert loader_of(data, workers=2, seed=None).num_workers == 1  # evaluation goes on


def test_what_needs_all_labels_is_refused(data, tmp_path):
    for settings in ({"balance": 0.5}, {"repeats": 2}):
        with pytest.raises(ValueError, match="balance and repeats need a list of all videos"):
            train(data / "shards", tmp_path / "run", **settings)
    with pytest.raises(DataError, match="has no validation shards besides the training shards; name some with --val"):
        train(data / "shards" / "train", tmp_path / "run")
    with pytest.raises(ValueError, match="allow_missing is for lists"):
        read_videos_or_shards(data / "shards", "val", how=ReadConfig(allow_missing=True))
    one = ShardList(data / "shards" / "val" / "0.tar")
    assert one.with_classes(("red", "blue")).class_names == ("red", "blue")
    with pytest.raises(DataError, match=r"classes.txt has classes that are not among the 2 classes \(cat, dog\): blue"):
        ShardList(data / "shards" / "val" / "0.tar", ("cat", "dog"))


def test_several_labels_in_training_and_one_in_shards(data, tmp_path, monkeypatch):
    several = VideoList(["a"], np.array([[True, True]]), CLASSES)
    splits = iter((several, ShardList(data / "shards" / "val" / "0.tar")))
    monkeypatch.setattr("sifa_zoo.training.run_data.read_videos_or_shards", lambda *args, **how: next(splits))
    config = RunConfig(data="x", model="sifa_net_nano", clip=CLIP, train=TrainConfig())
    with pytest.raises(DataError, match="training videos may have several labels each, but videos in shards have one"):
        read_data(config, run=tmp_path)


def test_remapped_labels(data, run, tmp_path):
    (tmp_path / "remap.csv").write_text("azure,blue\nscarlet,red\n")
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        for i, label in enumerate(("azure", "scarlet")):
            writer.write({"__key__": f"{i}", "mp4": (data / f"val0_{i}.mp4").read_bytes(), "txt": label})
    (tmp_path / "classes.txt").write_text("azure\nscarlet\n")
    options = {"workers": 0, "device": "cpu", "reading": {"remap": str(tmp_path / "remap.csv")}}
    assert evaluate_run(run, tmp_path / "a.tar", **options)["videos"] == 2
    with pytest.raises(DataError, match="has classes that are not among the 2 classes"):
        evaluate_run(run, tmp_path / "a.tar", workers=0, device="cpu")


def test_urls_and_patterns_stay_as_they_are(data, run, tmp_path):
    files = fsspec.filesystem("memory")
    for path in (data / "shards").rglob("*.*"):
        files.pipe_file(f"/farther/{path.relative_to(data / 'shards')}", path.read_bytes())
    files.pipe_file("/farther/train/sizes.json", json.dumps({f"{i}.tar": 4 for i in range(6)}).encode())
    files.pipe_file("/farther/val/sizes.json", b'{"0.tar": 4, "1.tar": 4}')
    train("memory://farther", tmp_path / "far", epochs=1, batch_size=12)
    assert json.loads((tmp_path / "far" / "config.json").read_text())["data"] == "memory://farther"
    near = evaluate_run(run, data / "shards", workers=0, device="cpu", output=tmp_path / "near_result")
    how = {"workers": 0, "device": "cpu", "reading": {"format": "webdataset"}}
    far = evaluate_run(run, "memory://farther", output=tmp_path / "far_result", **how)
    assert figures(near) == figures(far)
    tables = [(tmp_path / name / "videos.csv").read_text() for name in ("near_result", "far_result")]
    assert tables[0] == tables[1]


def test_without_the_library(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(ValueError, match=r"shards need the webdataset library: pip install 'sifa-zoo\[shards\]'"):
        train(data / "shards", tmp_path / "run")
