"""What version 0.1.0 wrote is read: a run interrupted in its second epoch, its weights; but not an index."""

import csv
import hashlib
import json
import os
import shutil
import zlib
from pathlib import Path

import av
import pytest
import torch

import sifa_zoo
from sifa_zoo.cli import main
from sifa_zoo.video.load import video_info

MADE = Path(__file__).parent / "made_by_0_1_0"
LOGITS = [0.27579131722450256, -0.15196537971496582]  # of version 0.1.0, for the clip below


@pytest.fixture
def run(tmp_path):
    """The run folder, beside the videos that it trains on."""
    shutil.copytree(MADE / "run", tmp_path / "run")
    shutil.copytree(MADE / "videos", tmp_path / "videos")
    config = tmp_path / "run" / "config.json"
    config.write_text(config.read_text().replace('"VIDEOS"', json.dumps(str(tmp_path / "videos"))))
    return tmp_path / "run"


def log(run):
    with open(run / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_run_goes_on(run, capsys):
    (before,) = log(run)
    assert main(["finetune", str(run.parent / "videos"), "--output", str(run), "--resume", "--device", "cpu"]) == 0
    first, second = log(run)
    assert first == before
    # Floating point differs a little between machines.
    assert float(second["train_loss"]) == pytest.approx(0.50934, rel=1e-3)
    assert float(second["val_loss"]) == pytest.approx(0.45425, rel=1e-3)
    captured = capsys.readouterr()
    assert "epoch 2/2" in captured.out
    assert "warning" not in captured.err


def test_the_run_is_evaluated_and_used(run, capsys):
    assert main(["eval", str(run), str(run.parent / "videos"), "--device", "cpu"]) == 0
    assert "top-1 100.00 %" in capsys.readouterr().out
    assert main(["predict", str(run.parent / "videos/val/red/0.mp4"), "--model", str(run), "--device", "cpu"]) == 0
    assert capsys.readouterr().out.index("red") < 100


@pytest.mark.parametrize("name", ["best.safetensors", "last.safetensors"])
def test_the_weights_give_the_same_logits(run, name):
    clip = torch.linspace(-2, 2, 3 * 4 * 32 * 32).reshape(1, 3, 4, 32, 32)
    loaded = sifa_zoo.create_model(f"local-dir:{run}").eval()
    given = json.loads((run / "config.json").read_text())["model_args"]
    fitted = sifa_zoo.create_model(
        "sifa_transformer_nano", checkpoint_path=run / name, num_classes=2, num_frames=4, img_size=32, **given
    ).eval()
    for model in (loaded, fitted):
        torch.testing.assert_close(model(clip)[0], torch.tensor(LOGITS), rtol=1e-4, atol=1e-4)


def test_the_index_is_made_anew(run, monkeypatch, tmp_path):
    video = run.parent / "videos/train/red/1.mp4"
    head, _, arrays = zlib.decompress((MADE / "index").read_bytes()).partition(b"\n")
    head = json.loads(head)
    version, *_, size, _ = head["identity"]
    libraries = [list(av.library_versions[name]) for name in ("libavformat", "libavcodec")]
    assert size == video.stat().st_size
    head["identity"] = [version, libraries, str(video), size, video.stat().st_mtime_ns]
    head["index"]["fps"] = 77.0  # tells it from an index that is made anew
    place = hashlib.sha256(os.fsencode(video)).hexdigest()[:40]
    stored = tmp_path / "cache" / "index" / place[:3] / place[3:]
    stored.parent.mkdir(parents=True)
    stored.write_bytes(zlib.compress(json.dumps(head).encode() + b"\n" + arrays))
    monkeypatch.setenv("SIFA_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SIFA_ZOO_INDEX", "on")
    assert video_info(video).fps == 10.0  # 0.1.0 took files for whole that may not be
