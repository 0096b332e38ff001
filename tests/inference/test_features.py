from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from tiny_videos import write_video

from sifa_zoo.config import ClipConfig
from sifa_zoo.datasets.transforms import eval_transform
from sifa_zoo.inference.features import extract, features_files
from sifa_zoo.inference.windows import Windows
from sifa_zoo.registry.create import create_model
from sifa_zoo.video.load import load_video

CLIP = ClipConfig(num_frames=8, frame_stride=1, img_size=32)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return create_model("sifa_net_nano", num_classes=3, num_frames=8, img_size=32).eval()


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("videos") / "a.mp4", color=(200, 30, 30), num_frames=29)


@pytest.mark.parametrize("hop", [None, 3, 8, "0.5s", 40])
@pytest.mark.parametrize(("per", "rows_per_window"), [("window", 1), ("step", 2)])
def test_rows_follow_the_formula(model, video, hop, per, rows_per_window) -> None:
    features = extract(model, video, clip=CLIP, hop=hop, per=per)
    frames = features.metadata["hop"]
    expected = rows_per_window * (1 + max(0, -(-(29 - 8) // frames)))
    assert features.values.shape == (expected, model.num_features)
    assert features.values.dtype == np.float32
    assert features.times.shape == (expected,)


def test_features_are_those_of_the_offline_path(model, video) -> None:
    features = extract(model, video, clip=CLIP, hop=5, batch_size=2)
    steps = extract(model, video, clip=CLIP, hop=5, per="step")
    starts = Windows(window=8, hop=5).starts(29)
    for row, start in enumerate(starts):
        frames = torch.from_numpy(load_video(video, range(start, start + 8), 32)).permute(0, 3, 1, 2)
        with torch.inference_mode():
            maps = model.forward_features(eval_transform(CLIP)(frames)[None])
            pooled = model.forward_head(maps, pre_logits=True)[0].numpy()
        np.testing.assert_allclose(features.values[row], pooled, atol=1e-5)
        np.testing.assert_allclose(steps.values[2 * row], maps[0, :, 0].mean((1, 2)).numpy(), atol=1e-5)
        assert features.times[row] == pytest.approx((start + 3.5) / 10)
        assert steps.times[2 * row + 1] == pytest.approx((start + 5.5) / 10)
    np.testing.assert_allclose(steps.values.reshape(len(starts), 2, -1).mean(1), features.values, atol=1e-5)


def test_two_heads_and_max_pooling(video) -> None:
    for options, width in (({"dual_head": True}, 2), ({"global_pool": "max"}, 1)):
        model = create_model("sifa_net_nano", num_classes=3, num_frames=8, img_size=32, **options).eval()
        assert extract(model, video, clip=CLIP).values.shape[1] == width * model.num_features
        assert extract(model, video, clip=CLIP, per="step").values.shape == (8, model.num_features)


def test_steps_are_evenly_spaced_by_default(model, video) -> None:
    times = extract(model, video, clip=CLIP, per="step").times
    np.testing.assert_allclose(np.diff(times[:6]), 0.4)


def test_files(model, video, tmp_path) -> None:
    features = extract(model, video, clip=CLIP, weights="runs/mine")
    for name in ("a.npy", "a.safetensors"):
        for path, content in features_files(features, tmp_path / name).items():
            path.write_bytes(content)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), features.values)
    beside = json.loads((tmp_path / "a.json").read_text())
    assert beside["times"] == features.times.tolist()
    with safe_open(tmp_path / "a.safetensors", "numpy") as file:
        np.testing.assert_array_equal(file.get_tensor("features"), features.values)
        np.testing.assert_array_equal(file.get_tensor("times"), features.times)
        metadata = json.loads(file.metadata()["sifa_zoo"])
    assert metadata == {name: value for name, value in beside.items() if name != "times"}
    facts = {"model": "sifa_net_nano", "weights": "runs/mine", "fps": 10, "frame_stride": 1, "hop": 8, "window": 8}
    assert metadata.items() >= facts.items()


def test_mistakes(model, video, tmp_path) -> None:
    with pytest.raises(ValueError, match="per must be one of"):
        extract(model, video, per="frame")
    with pytest.raises(ValueError, match="a length must be frames"):
        extract(model, video, clip=CLIP, hop="soon")
    with pytest.raises(ValueError, match=r"features are written to .npy or .safetensors files"):
        features_files(extract(model, video, clip=CLIP), tmp_path / "a.csv")
