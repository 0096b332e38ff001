"""What happens to runs: kills, signals, full disks, lost folders, bad files. None may hang or lose a checkpoint."""

from __future__ import annotations

import json
import math
import shutil
import signal
from functools import partial
from pathlib import Path
from random import Random

import pytest
import torch
from processes import (
    Ended,
    before_fsync,
    before_rename,
    before_update,
    both,
    fill_disk,
    kill_before_update,
    move,
    record,
    recorded,
    run_cli,
    send,
)
from safetensors.torch import load_file
from tiny_videos import write_videos

from sifa_zoo.runtime.checkpoint import load_run
from sifa_zoo.training.finetune import finetune

SHORT = "--model sifa_net_nano --num-frames 4 --frame-stride 1 --img-size 32 --device cpu --warmup-epochs 0 --lr 1e-3"
# What has a state of its own: dropout draws, the average moves, batches of two make an update, clips are mixed.
RICH = "--drop-rate 0.3 --ema-decay 0.9 --batch-size 2 --accumulation-steps 2 --mixup-alpha 0.8 --opt adamw"


def command(videos: Path, output: Path, flags: str = "") -> list[str]:
    return ["finetune", str(videos), "--output", str(output), *f"{SHORT} --workers 0 {flags}".split()]


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_killed_run_goes_on_bit_for_bit(videos, tmp_path, same_run, ranks):
    flags = f"{RICH} --epochs 3 --save-every 1 --resume auto"
    flags += f" --accumulation-steps {3 - ranks}"
    unbroken, broken = tmp_path / "unbroken.jsonl", tmp_path / "broken.jsonl"
    ended = run_cli(
        command(videos, tmp_path / "a", flags), tmp_path, ranks=ranks, arrange={0: partial(record, unbroken)}
    )
    assert [one.code for one in ended] == [0] * ranks, ended[0].text
    for update in Random(ranks).sample(range(1, 4), 2):  # counted from where the process began
        kill = partial(both, partial(record, broken), kill_before_update(update))
        ended = run_cli(command(videos, tmp_path / "b", flags), tmp_path, ranks=ranks, arrange={0: kill})
        assert ended[0].code == -signal.SIGKILL
        if ranks == 2:
            assert ended[1].code == 1
            assert "another process of the run has ended" in ended[1].text
    ended = run_cli(command(videos, tmp_path / "b", flags), tmp_path, ranks=ranks, arrange={0: partial(record, broken)})
    assert ended[0].code == 0, ended[0].text
    assert recorded(broken) == recorded(unbroken)
    same_run(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("rename", [2, 5, 6])  # the first state; the state of a whole epoch; what belongs to it
def test_a_kill_while_saving_leaves_a_loadable_checkpoint(videos, tmp_path, unbroken, same_run, rename):
    flags = "--batch-size 4 --epochs 2 --save-every 1 --resume auto"
    kill = partial(before_rename, rename, partial(send, signal.SIGKILL))
    assert run_cli(command(videos, tmp_path / "run", flags), tmp_path, arrange={0: kill})[0].code == -signal.SIGKILL
    assert any(path.suffix == ".tmp" for path in (tmp_path / "run").iterdir())
    ended = run_cli(command(videos, tmp_path / "run", flags), tmp_path)
    assert ended[0].code == 0, ended[0].text
    same_run(tmp_path / "run", unbroken)


@pytest.mark.parametrize(("number", "ranks"), [(signal.SIGINT, 1), (signal.SIGTERM, 1), (signal.SIGTERM, 2)])
def test_a_signal_ends_the_update_and_saves(videos, tmp_path, unbroken, same_run, number, ranks):
    flags = f"--batch-size {4 // ranks} --epochs 2"
    signalled = ranks - 1  # of two processes the one that does not write
    stop = partial(before_update, 3, partial(send, number))
    ended = run_cli(command(videos, tmp_path / "run", flags), tmp_path, ranks=ranks, arrange={signalled: stop})
    assert ended[signalled].code == 128 + number, ended[signalled].text
    assert {one.code for one in ended} <= {130, 143}
    assert "update 1 of epoch 2 is saved in" in ended[0].text
    lines = [line for line in ended[0].text.splitlines() if line.startswith("interrupted")]
    assert len(lines) == 1
    assert lines[0].endswith("--resume")
    assert "Traceback" not in "".join(one.text for one in ended)
    ended = run_cli(command(videos, tmp_path / "run", "--resume"), tmp_path, ranks=ranks)
    assert ended[0].code == 0, ended[0].text
    if ranks == 1:
        same_run(tmp_path / "run", unbroken)


def test_a_second_signal_does_not_wait(videos, tmp_path):
    twice = partial(both, *[partial(before_update, 3, partial(send, signal.SIGINT))] * 2)
    ended = run_cli(command(videos, tmp_path / "run", "--epochs 2 --batch-size 4"), tmp_path, arrange={0: twice})
    assert ended[0].code == 130
    assert "is saved in" not in ended[0].text


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_full_disk_ends_in_one_line(videos, tmp_path, ranks):
    full = partial(before_fsync, 3, fill_disk)
    flags = "--batch-size 2 --epochs 2 --save-every 1"
    ended = run_cli(command(videos, tmp_path / "run", flags), tmp_path, ranks=ranks, arrange={0: full})
    assert [one.code for one in ended] == [1] * ranks
    (line,) = errors(ended[0])
    assert line.startswith("error: no space left on the disk while saving")
    assert line.endswith("state.pt; what was saved before is untouched")
    assert run_cli(command(videos, tmp_path / "run", "--resume"), tmp_path, ranks=ranks)[0].code == 0


@pytest.mark.parametrize(("flags", "ranks"), [("", 1), ("--skip-bad", 1), ("--skip-bad", 2)])
def test_a_lost_data_folder_ends_in_one_line(tmp_path, flags, ranks):
    videos = write_videos(tmp_path / "videos", num_train=4, num_val=1)
    lose = partial(before_update, 2, partial(move, videos, tmp_path / "away"))
    flags = f"--batch-size 2 --epochs 3 --save-every 1 {flags}"
    ended = run_cli(command(videos, tmp_path / "run", flags), tmp_path, ranks=ranks, arrange={0: lose})
    assert ended[0].code == 1
    assert errors(ended[0]) == [f"error: {videos} is gone: bring it back and continue with --resume"]
    move(tmp_path / "away", videos)
    assert run_cli(command(videos, tmp_path / "run", "--resume"), tmp_path, ranks=ranks)[0].code == 0


def test_a_list_remains_when_its_videos_are_lost(tmp_path):
    videos = write_videos(tmp_path / "videos", num_train=2, num_val=1)
    for split in ("train", "val"):
        lines = [f"{path} {path.parent.name}" for path in sorted((videos / split).rglob("*.mp4"))]
        (tmp_path / f"{split}.txt").write_text("\n".join(lines))
    lose = partial(before_update, 1, partial(move, videos, tmp_path / "away"))
    argv = command(tmp_path, tmp_path / "run", "--batch-size 2 --epochs 3 --skip-bad")
    ended = run_cli(argv, tmp_path / "logs", arrange={0: lose})
    assert errors(ended[0]) == [f"error: {videos / 'train'} is gone: bring it back and continue with --resume"]


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_loss_that_is_not_finite_names_the_videos(videos, tmp_path, ranks):
    flags = "--opt sgd --lr 1e12 --clip-grad 0 --batch-size 2 --epochs 3"
    ended = run_cli(command(videos, tmp_path / "run", flags), tmp_path, ranks=ranks)
    assert {one.code for one in ended} == {1}
    messages = [line for one in ended for line in errors(one) if "with the videos" in line]
    assert messages
    assert all(".mp4" in line and "lower the learning rate" in line for line in messages)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_file_that_goes_bad_stops_the_run_by_name(tmp_path, ranks):
    videos = write_videos(tmp_path / "videos", num_train=4, num_val=1)
    victim = videos / "train" / "red" / "2.mp4"
    spoil = partial(before_update, 1, partial(victim.write_bytes, b"no video"))
    flags = f"--batch-size {4 // ranks} --epochs 3"
    ended = run_cli(command(videos, tmp_path / "run", flags), tmp_path, ranks=ranks, arrange={0: spoil})
    assert 0 not in [one.code for one in ended]
    named = [line for one in ended for line in errors(one) if str(victim) in line]
    assert len(named) == 1


@pytest.mark.parametrize("ranks", [1, 2])
def test_skipped_files_are_counted_and_reported(tmp_path, ranks):
    videos = write_videos(tmp_path / "videos", num_train=5, num_val=2)
    for name in ("train/red/2.mp4", "train/blue/0.mp4", "val/red/0.mp4"):
        (videos / name).write_bytes(b"no video")
    flags = f"--batch-size {6 // ranks} --epochs 2 --skip-bad --save-every 1 --accumulation-steps 2"
    records = [tmp_path / f"{rank}.jsonl" for rank in range(ranks)]
    arrange = {rank: partial(record, file) for rank, file in enumerate(records)}
    ended = run_cli(command(videos, tmp_path / "run", flags), tmp_path, ranks=ranks, arrange=arrange)
    assert [one.code for one in ended] == [0] * ranks, ended[0].text
    assert "3 of 14 videos cannot be used (listed above) and will be skipped" in ended[0].text
    assert "validation is INCOMPLETE: 3 of 4 videos" in ended[0].text
    start = "left out from the start: 3 videos: "
    summary = next(line for line in ended[0].text.splitlines() if line.startswith(start))
    assert summary.count(".mp4: ") == 3
    rows = (tmp_path / "run" / "log.csv").read_text().splitlines()
    assert rows[0].split(",")[:4] == ["epoch", "lr", "train_loss", "skipped"]
    assert [row.split(",")[3] for row in rows[1:]] == ["2", "2"]
    counts = [len(recorded(file)) for file in records]
    assert counts == [counts[0]] * ranks
    assert load_run(tmp_path / "run")


def test_a_file_that_goes_bad_leaves_the_rates_as_they_were(tmp_path):
    videos = write_videos(tmp_path / "videos", num_train=4, num_val=1)
    flags = "--batch-size 2 --epochs 2 --skip-bad --save-every 1 --resume auto"
    log = tmp_path / "log.jsonl"
    kill = partial(both, partial(record, log), kill_before_update(3))
    run_cli(command(videos, tmp_path / "run", flags), tmp_path, arrange={0: kill})
    (videos / "train" / "red" / "3.mp4").write_bytes(b"no video")
    ended = run_cli(command(videos, tmp_path / "run", flags), tmp_path, arrange={0: partial(record, log)})
    assert ended[0].code == 0, ended[0].text
    assert "skipped 2 times, 1 videos" in ended[0].text
    cosine = [1e-3 * (1 + math.cos(math.pi * update / 8)) / 2 for update in range(8)]
    assert [scalars["lr"] for scalars in recorded(log).values()] == pytest.approx(cosine)


def test_what_was_left_out_stays_out(tmp_path):
    videos = write_videos(tmp_path / "videos", num_train=4, num_val=1)
    bad = videos / "train" / "red" / "3.mp4"
    good = bad.read_bytes()
    bad.write_bytes(b"no video")
    flags = "--batch-size 2 --epochs 2 --skip-bad --save-every 1 --resume auto"
    run_cli(command(videos, tmp_path / "run", flags), tmp_path, arrange={0: kill_before_update(3)})
    bad.write_bytes(good)
    ended = run_cli(command(videos, tmp_path / "run", flags), tmp_path)
    assert ended[0].code == 0, ended[0].text
    assert f"left out from the start: 1 videos: {bad}" in ended[0].text


def test_batches_that_are_left_out_do_not_count(tmp_path, monkeypatch):
    """Two clips of each video make a batch, so that one bad video is a bad batch."""
    monkeypatch.setattr("sifa_zoo.training.finetune.check_files", lambda *_, **__: {})
    videos = write_videos(tmp_path / "videos", num_train=2, num_val=1)
    clip = {"num_frames": 4, "frame_stride": 1, "img_size": 32}
    settings = {"batch_size": 2, "repeats": 2, "accumulation_steps": 4, "epochs": 1, "warmup_epochs": 0, "opt": "sgd"}
    settings |= {"workers": 0, "skip_bad": True, "clip_grad": 0, "lr": 0.1}
    bad = videos / "train" / "red" / "1.mp4"
    for name in ("absent", "left_out"):
        bad.unlink() if name == "absent" else bad.write_bytes(b"no video")
        finetune(videos, model="sifa_net_nano", output=tmp_path / name, clip=clip, train=settings, device="cpu")
    ours, theirs = (load_file(tmp_path / name / "last.safetensors") for name in ("left_out", "absent"))
    for name in theirs:
        if name.endswith("weight"):  # running statistics depend on the order
            torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-5)


def test_an_epoch_of_bad_files_only_is_an_error(tmp_path):
    videos = write_videos(tmp_path / "videos", num_train=2, num_val=1)
    for file in (videos / "train").rglob("*.mp4"):
        file.write_bytes(b"no video")
    ended = run_cli(command(videos, tmp_path / "run", "--skip-bad --epochs 1"), tmp_path)
    assert ended[0].code == 2
    assert errors(ended[0]) == ["error: not one training video can be used; they are listed above"]


def test_one_good_clip_in_a_batch_of_bad_files_is_enough(tmp_path):
    videos = write_videos(tmp_path / "videos", num_train=4, num_val=1)
    for name in ("red/1", "red/2", "red/3", "blue/1", "blue/2", "blue/3"):
        (videos / "train" / f"{name}.mp4").write_bytes(b"no video")
    ended = run_cli(command(videos, tmp_path / "run", "--skip-bad --epochs 1 --batch-size 2"), tmp_path)
    assert ended[0].code == 0, ended[0].text
    assert "skipped: " not in ended[0].text


def test_resume_auto_starts_and_goes_on(videos, tmp_path):
    argv = command(videos, tmp_path / "run", "--epochs 1 --batch-size 4 --resume auto")
    assert "epoch 1/1" in run_cli(argv, tmp_path)[0].text
    assert "is finished: all 1 epochs are done" in run_cli(argv, tmp_path)[0].text


def test_another_number_of_processes_is_refused(videos, unbroken, tmp_path):
    run = shutil.copytree(unbroken, tmp_path / "run")
    settings = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**settings, "train": {**settings["train"], "epochs": 3}}))
    ended = run_cli(command(videos, run, "--resume"), tmp_path, ranks=2)
    assert ended[0].code == 2
    assert "has 1 processes, not 2: resume it with 1" in errors(ended[0])[0]


@pytest.fixture(scope="module")
def unbroken(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two epochs, two updates each. Read it only."""
    folder = tmp_path_factory.mktemp("unbroken")
    ended = run_cli(command(videos, folder / "run", "--batch-size 4 --epochs 2"), folder)
    assert ended[0].code == 0, ended[0].text
    return folder / "run"


def errors(ended: Ended) -> list[str]:
    assert "Traceback" not in ended.text, ended.text
    return [line for line in ended.text.splitlines() if line.startswith("error: ")]
