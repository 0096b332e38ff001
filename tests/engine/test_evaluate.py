from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tiny_videos import write_video, write_videos
from torch import Tensor, nn

from sifa_zoo.config import ClipConfig
from sifa_zoo.data.datasets import ClipDataset
from sifa_zoo.data.transforms import eval_transform
from sifa_zoo.data.videos import DataError, VideoList
from sifa_zoo.engine.checkpoint import read_info
from sifa_zoo.engine.evaluate import evaluate, evaluate_run, protocol, video_scores
from sifa_zoo.engine.loader import clip_loader

CLIP = ClipConfig(num_frames=4, frame_stride=1, img_size=32)


class Redness(nn.Module):
    """Logits of `num_classes`: how red the clip is for class 1, 0 for the others."""

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, clip: Tensor) -> Tensor:
        logits = clip.new_zeros(len(clip), self.num_classes)
        logits[:, 1] = clip[:, 0].mean((1, 2, 3)) - clip[:, 2].mean((1, 2, 3))
        return logits


def _loader(videos: VideoList, *, workers: int = 0, num_clips: int = 1) -> object:
    dataset = ClipDataset(videos, CLIP, eval_transform(CLIP), num_clips=num_clips)
    return clip_loader(dataset, batch_size=2, workers=workers)


def test_accuracy_over_videos(tmp_path: Path) -> None:
    red, blue = (200, 30, 30), (30, 30, 200)
    paths = tuple(write_video(tmp_path / f"{i}.mp4", color=color) for i, color in enumerate((red, red, blue)))
    videos = VideoList(paths=paths, labels=(1, 0, 0), class_names=("blue", "red"))
    result = evaluate(Redness(), _loader(videos), device="cpu")
    assert result["top1"] == pytest.approx(200 / 3)
    assert result["top5"] == 100  # of two classes
    assert (result["videos"], result["expected"], result["failed"]) == (3, 3, ())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_video_is_named_and_counted(tmp_path: Path, workers: int) -> None:
    good = write_video(tmp_path / "good.mp4", color=(200, 30, 30))
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    videos = VideoList(paths=(good, bad, bad), labels=(1, 0, 1), class_names=("blue", "red"))
    result = evaluate(Redness(), _loader(videos, workers=workers), device="cpu")
    assert (result["top1"], result["videos"], result["expected"]) == (100, 1, 3)
    assert [line.startswith(str(bad)) and "\n" not in line for line in result["failed"]] == [True, True]


def test_scores_are_averaged_over_clips_after_softmax() -> None:
    clips = torch.randn(2, 3, 3, 4, 8, 8)
    expected = torch.stack([Redness(3)(clips[:, i]).softmax(-1) for i in range(3)]).mean(0)
    torch.testing.assert_close(video_scores(Redness(3), clips), expected)


def test_evaluate_restores_train_mode(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", color=(200, 30, 30))
    model = Redness().train()
    evaluate(model, _loader(VideoList((path,), (1,), ("blue", "red"))), device="cpu")
    assert model.training


def test_evaluate_run_repeats_the_figure_of_training(run_folder: Path, data: Path) -> None:
    result = evaluate_run(run_folder, data, workers=0, batch_size=2, device="cpu")
    info = read_info(run_folder)
    assert info is not None
    assert result["top1"] == info.metrics["val_top1"]
    assert math.isclose(result["loss"], info.metrics["val_loss"], rel_tol=1e-6)
    assert result["protocol"] == "4x1, 32, 1x1 views"


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


def test_nothing_decodable_is_an_error(run_folder: Path, tmp_path: Path) -> None:
    for name in ("blue", "red"):
        (tmp_path / "val" / name).mkdir(parents=True)
        (tmp_path / "val" / name / "0.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match=r"none of the 2 videos .* can be decoded"):
        evaluate_run(run_folder, tmp_path, workers=0, device="cpu")


def test_protocol() -> None:
    assert protocol(ClipConfig(), num_clips=4) == "16x4, 224, 4x1 views"
    assert protocol(ClipConfig(sampling="uniform"), num_clips=1) == "16 uniform, 224, 1x1 views"
