from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sifa_zoo.config import ClipConfig
from sifa_zoo.runtime.checkpoint import clip_config, load_run, read_info
from sifa_zoo.weights.info import WeightsInfo


def test_weights_say_what_they_are(run_folder: Path) -> None:
    info = read_info(run_folder)
    assert info is not None
    assert (info.arch, info.class_names) == ("sifa_net_nano", ("blue", "red"))
    assert info.clip == ClipConfig(num_frames=4, frame_stride=1, img_size=32)
    assert info.metrics.keys() == {"val_loss", "val_top1", "val_top5", "val_videos", "val_expected"}
    assert read_info(run_folder / "last.safetensors").epoch == 3  # type: ignore[union-attr]


def test_info_survives_json_and_later_keys() -> None:
    info = WeightsInfo(arch="a", class_names=("x", "y"), clip=ClipConfig(mean=(0.1, 0.2, 0.3)), version="1")
    assert WeightsInfo.from_json(info.to_json()) == info
    assert WeightsInfo.from_json(info.to_json().replace("{", '{"later": 1, ', 1)) == info


def test_load_run_gives_the_trained_model(run_folder: Path) -> None:
    model = load_run(run_folder)
    assert not model.training
    assert model.pretrained_cfg["label_names"] == ("blue", "red")
    assert model.pretrained_cfg["input_size"] == (3, 32, 32)
    assert clip_config(model) == ClipConfig(num_frames=4, frame_stride=1, img_size=32)
    stored = load_file(run_folder / "best.safetensors")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, stored[name]), name


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: None, "no such run folder or weights file"),
        (lambda path: path.mkdir(), r"holds no best\.safetensors"),
        (lambda path: path.write_bytes(b"not weights"), "not a safetensors file"),
        (lambda path: save_file({"a": torch.zeros(1)}, path), "not written by `sifa-zoo finetune`"),
    ],
)
def test_load_run_refuses(tmp_path: Path, prepare: object, message: str) -> None:
    prepare(tmp_path / "run")  # type: ignore[operator]
    with pytest.raises(ValueError, match=message):
        load_run(tmp_path / "run")


def test_load_run_refuses_a_missing_key(run_folder: Path, tmp_path: Path) -> None:
    with safe_open(run_folder / "best.safetensors", framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(run_folder / "best.safetensors")
    tensors.pop("layer1.0.conv1.weight")
    save_file(tensors, tmp_path / "broken.safetensors", metadata)
    with pytest.raises(ValueError, match=r"layer1\.0\.conv1\.weight"):
        load_run(tmp_path / "broken.safetensors")


def test_run_folder_can_be_moved(run_folder: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(run_folder, tmp_path / "elsewhere")
    assert load_run(moved / "last.safetensors").num_classes == 2
