from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from colour_model import Redness, evaluate_shard, loader_of
from safetensors.torch import load_file
from tiny_videos import write_two_colours, write_video, write_videos
from torch import multiprocessing

from sifa_zoo.datasets.videos import DataError, VideoList
from sifa_zoo.evaluation.evaluate import evaluate, evaluate_run
from sifa_zoo.evaluation.scores import ScoreError, view_scores
from sifa_zoo.runtime.checkpoint import pack_weights, read_info

RED, BLUE = (200, 30, 30), (30, 30, 200)


def test_accuracy_over_videos(tmp_path: Path) -> None:
    paths = tuple(write_video(tmp_path / f"{i}.mp4", color=color) for i, color in enumerate((RED, RED, BLUE)))
    videos = VideoList(paths=paths, labels=(1, 0, 0), class_names=("blue", "red"))
    result = evaluate(Redness(), loader_of(videos), device="cpu")
    assert result["top1"] == pytest.approx(200 / 3)
    assert result["top5"] == 100  # of two classes
    assert result["mean_class_accuracy"] == 75
    assert result["clip_top1"] == result["top1"]
    assert (result["videos"], result["expected"], result["failed"]) == (3, 3, ())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_video_is_named_and_counted(tmp_path: Path, workers: int) -> None:
    good = write_video(tmp_path / "good.mp4", color=(200, 30, 30))
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    videos = VideoList(paths=(good, bad, bad), labels=(1, 0, 1), class_names=("blue", "red"))
    result = evaluate(Redness(), loader_of(videos, workers=workers), device="cpu")
    assert (result["top1"], result["videos"], result["expected"]) == (100, 1, 3)
    assert [line.startswith(str(bad)) and "\n" not in line for line in result["failed"]] == [True, True]


def test_scores_are_averaged_over_clips_after_softmax(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", color=RED, num_frames=40)
    videos = VideoList((path,), (1,), ("blue", "red"))
    loader = loader_of(videos, num_clips=3)
    clips = next(iter(loader)).clips
    scores = torch.stack([Redness()(clips[:, i]).softmax(-1) for i in range(3)]).mean(0)
    loss = evaluate(Redness(), loader, device="cpu")["loss"]
    assert loss == pytest.approx(-math.log(scores[0, 1]))


@pytest.mark.parametrize("max_clips", [1, 2, 4, None])
def test_views_run_in_chunks(max_clips: int | None) -> None:
    clips, model = torch.randn(2, 3, 3, 4, 8, 8), Redness(3)
    scores = view_scores(model, clips, max_clips=max_clips)
    assert scores.shape == (2, 3, 3)
    assert model.largest_batch == (max_clips or 6)
    torch.testing.assert_close(scores[1, 2], Redness(3)(clips[1, 2:])[0].softmax(-1))
    torch.testing.assert_close(
        view_scores(model, clips, multi_label=True)[0, 1], Redness(3)(clips[0, 1:2])[0].sigmoid()
    )


def test_clip_accuracy_counts_every_view(tmp_path: Path) -> None:
    path = write_two_colours(tmp_path / "mixed.mp4")
    videos = VideoList((path,), (1,), ("blue", "red"))
    result = evaluate(Redness(), loader_of(videos, num_clips=3), device="cpu")
    assert result["clip_top1"] == pytest.approx(200 / 3)
    assert (result["top1"], result["clip_top5"]) == (100, 100)


def test_multi_label(tmp_path: Path) -> None:
    """Both classes may be there, so the scores are of a sigmoid, and the best class counts if it is among them."""
    paths = tuple(write_video(tmp_path / f"{i}.mp4", color=color) for i, color in enumerate((RED, BLUE, RED)))
    videos = VideoList(paths, np.array([[1, 1], [1, 0], [0, 0]], dtype=bool), ("any", "red"))
    result = evaluate(Redness(), loader_of(videos), device="cpu")
    assert result["top1"] == pytest.approx(200 / 3)
    # equal scores count as one threshold: all three of `any`, and two red videos, one of them labelled
    assert result["map"] == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)
    assert "mean_class_accuracy" not in result
    assert (result["videos"], result["expected"]) == (3, 3)


@pytest.mark.parametrize("bad", [False, True])
def test_two_processes_count_each_video_once(tmp_path: Path, bad: bool) -> None:
    paths = [write_video(tmp_path / f"{i}.mp4", color=RED if i % 3 else BLUE, seed=i) for i in range(5)]
    if bad:
        paths[1].write_bytes(b"no video")
    videos = VideoList(paths, (0, 1, 1, 1, 1), ("blue", "red"))
    multiprocessing.spawn(evaluate_shard, args=(2, str(tmp_path), videos), nprocs=2)
    alone = json.loads(json.dumps(evaluate(Redness(), loader_of(videos), device="cpu")))
    assert (alone["videos"], alone["expected"]) == (5 - bad, 5)
    assert 0 < alone["top1"] < 100
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == alone


def test_videos_left_out_on_reading_are_expected(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", color=RED)
    videos = VideoList((path,), (1,), ("blue", "red"), missing=("b.mp4", "c.mp4"))
    result = evaluate(Redness(), loader_of(videos), device="cpu")
    assert (result["videos"], result["expected"]) == (1, 3)


def test_evaluate_restores_train_mode(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", color=(200, 30, 30))
    model = Redness().train()
    evaluate(model, loader_of(VideoList((path,), (1,), ("blue", "red"))), device="cpu")
    assert model.training


def test_evaluate_run_repeats_the_figure_of_training(run_folder: Path, data: Path) -> None:
    result = evaluate_run(run_folder, data, workers=0, batch_size=2, device="cpu")
    info = read_info(run_folder)
    assert info is not None
    assert result["top1"] == info.metrics["val_top1"]
    assert math.isclose(result["loss"], info.metrics["val_loss"], rel_tol=1e-6)
    assert result["protocol"] == "4x1, 32, 1x1 views, softmax mean"


def test_evaluate_run_refuses_other_classes(run_folder: Path, tmp_path: Path) -> None:
    videos = write_videos(tmp_path / "videos", num_train=1, num_val=1)
    write_video(videos / "val" / "green" / "0.mp4", color=(30, 200, 30))
    with pytest.raises(DataError, match="green"):
        evaluate_run(run_folder, videos, workers=0, device="cpu")


def test_evaluate_run_takes_the_order_of_the_weights(run_folder: Path, data: Path, tmp_path: Path) -> None:
    lines = [f"{path} {path.parent.name}" for path in sorted((data / "val").glob("red/*.mp4"))]
    (tmp_path / "red.txt").write_text("\n".join(lines))
    result = evaluate_run(run_folder, tmp_path / "red.txt", workers=0, device="cpu")
    whole = evaluate_run(run_folder, data, workers=0, device="cpu")
    assert result["videos"] == 2
    assert result["top1"] == whole["top1"] == 100


def test_several_labels_are_a_matter_of_the_weights(run_folder: Path, data: Path, tmp_path: Path) -> None:
    info = read_info(run_folder)
    assert info is not None
    tensors = load_file(run_folder / "best.safetensors")
    several = tmp_path / "several.safetensors"
    several.write_bytes(pack_weights(tensors, dataclasses.replace(info, multi_label=True)))
    result = evaluate_run(several, data, workers=0, device="cpu")
    assert (result["protocol"], result["multi_label"]) == ("4x1, 32, 1x1 views, sigmoid mean", True)
    assert "map" in result
    assert "mean_class_accuracy" not in result
    lists = tmp_path / "several.csv"
    lists.write_text("path,labels\n" + "".join(f'{path},"[""red"", ""blue""]"\n' for path in data.glob("val/*/*.mp4")))
    assert evaluate_run(several, lists, workers=0, device="cpu")["top1"] == 100
    with pytest.raises(DataError, match=r"may have several labels each, but .* was trained on videos with one"):
        evaluate_run(run_folder, lists, workers=0, device="cpu")


def test_nothing_decodable_is_an_error(run_folder: Path, tmp_path: Path) -> None:
    for name in ("blue", "red"):
        (tmp_path / "val" / name).mkdir(parents=True)
        (tmp_path / "val" / name / "0.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match=r"none of the 2 videos .* can be decoded"):
        evaluate_run(run_folder, tmp_path, workers=0, device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_clips": 0}, "num_clips must be at least 1, got 0"),
        ({"num_crops": 0}, "num_crops must be one of .*, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"precision": "int4"}, "precision must be one of .*, got 'int4'"),
    ],
)
def test_evaluate_run_refuses(run_folder: Path, data: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_run(run_folder, data, workers=0, device="cpu", **options)


def test_precision_changes_little(run_folder: Path, data: Path) -> None:
    options = {"workers": 0, "device": "cpu"}
    full, half = (evaluate_run(run_folder, data, precision=name, **options) for name in ("fp32", "bf16"))
    assert half["settings"]["precision"] == "bf16"
    assert half["loss"] != full["loss"]
    assert half["loss"] == pytest.approx(full["loss"], rel=0.05)


def test_scores_that_are_not_finite_are_refused() -> None:
    model, clips = Redness(3), torch.rand(2, 1, 3, 2, 4, 4)
    clips[1] = torch.inf
    for multi_label in (False, True):
        with pytest.raises(ScoreError, match=r"the scores of Redness are not finite for b\.mp4: its weights"):
            view_scores(model, clips, names=["a.mp4", "b.mp4"], multi_label=multi_label)
