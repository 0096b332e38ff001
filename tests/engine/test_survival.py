"""What happens to runs: kills, signals, full disks, lost folders, bad files. None may hang or lose a checkpoint."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path

import pytest
from processes import before_update, both, kill_before_update, record, recorded, run_cli, send
from tiny_videos import write_videos

from sifa_zoo.engine.checkpoint import load_run

SHORT = "--model sifa_net_nano --num-frames 4 --frame-stride 1 --img-size 32 --device cpu --warmup-epochs 0 --lr 1e-3"
# What has a state of its own: dropout draws, the average moves, batches of two make an update, clips are mixed.
RICH = "--drop-rate 0.3 --ema-decay 0.9 --batch-size 2 --accumulation-steps 2 --mixup-alpha 0.8 --opt adamw"


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight training and three validation videos."""
    folder = write_videos(tmp_path_factory.mktemp("videos"), num_train=4, num_val=2)
    (folder / "val" / "red" / "1.mp4").unlink()
    return folder


def command(videos: Path, output: Path, flags: str = "") -> list[str]:
    return ["finetune", str(videos), "--output", str(output), *f"{SHORT} --workers 0 {flags}".split()]


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_killed_run_goes_on_bit_for_bit(videos: Path, tmp_path: Path, ranks: int) -> None:
    flags = f"{RICH} --epochs 3 --save-every 1 --resume auto" + (" --accumulation-steps 1" if ranks == 2 else "")
    unbroken, broken = tmp_path / "unbroken.jsonl", tmp_path / "broken.jsonl"
    ended = run_cli(command(videos, tmp_path / "a", flags), tmp_path, ranks=ranks, arrange={0: partial(record, unbroken)})
    assert [one.code for one in ended] == [0] * ranks, ended[0].text
    for update in (2, 3):  # of each process: in the first epoch, then in the second
        kill = both_of(partial(record, broken), kill_before_update(update))
        ended = run_cli(command(videos, tmp_path / "b", flags), tmp_path, ranks=ranks, arrange={0: kill})
        assert ended[0].code == -signal.SIGKILL
        if ranks == 2:
            assert ended[1].code == 1
            assert "another process of the run has ended" in ended[1].text
    ended = run_cli(command(videos, tmp_path / "b", flags), tmp_path, ranks=ranks, arrange={0: partial(record, broken)})
    assert ended[0].code == 0, ended[0].text
    assert recorded(broken) == recorded(unbroken)
    for name in ("log.csv", "last.safetensors", "best.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def both_of(*arrangements):
    return partial(both, *arrangements)
