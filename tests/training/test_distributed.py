"""Two processes of one run: the same result as one with twice the batch, and no process waits forever."""

from __future__ import annotations

import csv
import json
import os
import time
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import torch
from processes import kill_before_update, record, recorded, run_cli, run_functions
from safetensors.torch import load_file

import sifa_zoo
from sifa_zoo.runtime.processes import (
    PeerError,
    all_sum,
    broadcast,
    gather_rows,
    on_writer,
    process_group,
    rank,
    world_size,
)
from sifa_zoo.training.distributed import called_modules, units

CLIP = "--num-frames 4 --frame-stride 1 --warmup-epochs 0 --device cpu --workers 0"
NET = f"--model sifa_net_nano --img-size 32 {CLIP}"
TRANSFORMER = f"--model sifa_transformer_nano --img-size 64 {CLIP}"
# Batch norm in training sees the clips of its own process; frozen, it uses its running statistics.
FROZEN_NORMS = NET + r" --freeze \bbn\d|\bconv1\.[14]|\bdownsample\.1"


def train(videos: Path, output: Path, flags: str, *, ranks: int) -> dict[int, dict[str, float]]:
    """The scalars of each update."""
    argv = ["finetune", str(videos), "--output", str(output), *flags.split()]
    file = output.with_suffix(".jsonl")
    ended = run_cli(argv, output.parent / f"{output.name}_logs", ranks=ranks, arrange={0: partial(record, file)})
    assert [one.code for one in ended] == [0] * ranks, ended[0].text
    assert all(not one.text or "epoch" not in one.text for one in ended[1:]), "only the writer prints"
    return recorded(file)


def rows(run: Path) -> list[dict[str, float]]:
    with (run / "log.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize("accumulation_steps", [1, 2])
@pytest.mark.parametrize("model", [TRANSFORMER, FROZEN_NORMS], ids=["transformer", "net"])
def test_two_processes_are_one_with_twice_the_batch(videos, tmp_path, model, accumulation_steps):
    flags = f"{model} --opt sgd --lr 0.05 --epochs 1 --accumulation-steps {accumulation_steps}"
    batch = 4 // accumulation_steps
    one = train(videos, tmp_path / "one", f"{flags} --batch-size {batch}", ranks=1)
    two = train(videos, tmp_path / "two", f"{flags} --batch-size {batch // 2}", ranks=2)
    assert one.keys() == two.keys() == {1, 2}
    for update in one:
        assert two[update] == pytest.approx(one[update], rel=1e-5)
    ours, theirs = (load_file(tmp_path / name / "last.safetensors") for name in ("two", "one"))
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize(("batch_size", "ranks"), [(3, 1), (1, 2)])  # 3 + 3 + 2 clips, and four times 1 + 1
def test_accumulated_batches_are_one_large_one(videos, tmp_path, batch_size, ranks):
    flags = f"{TRANSFORMER} --opt sgd --lr 0.05 --epochs 1"
    whole = train(videos, tmp_path / "whole", f"{flags} --batch-size 8", ranks=1)
    flags += f" --batch-size {batch_size} --accumulation-steps 4"
    parts = train(videos, tmp_path / "parts", flags, ranks=ranks)
    assert parts[1] == pytest.approx(whole[1], rel=1e-5)
    ours, theirs = (load_file(tmp_path / name / "last.safetensors") for name in ("parts", "whole"))
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=1e-6, msg=name)


def test_every_validation_video_counts_once(videos, tmp_path):
    train(videos, tmp_path / "one", f"{TRANSFORMER} --lr 0 --epochs 1 --batch-size 2", ranks=1)
    train(videos, tmp_path / "two", f"{TRANSFORMER} --lr 0 --epochs 1 --batch-size 1", ranks=2)
    (one,), (two,) = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert two["val_top1"] == one["val_top1"] in (pytest.approx(100 / 3), pytest.approx(200 / 3), 0.0, 100.0)
    assert two["val_loss"] == pytest.approx(one["val_loss"], abs=1e-6)
    assert [(row["val_videos"], row["val_expected"]) for row in (one, two)] == [(3, 3)] * 2


def test_evaluation_by_two_processes_is_that_by_one(videos, tmp_path):
    train(videos, tmp_path / "run", f"{NET} --epochs 1 --batch-size 4", ranks=1)
    results = []
    for ranks in (1, 2):
        output = tmp_path / f"{ranks}.json"
        argv = ["eval", str(tmp_path / "run"), str(videos), "--output", str(output), "--batch-size", "1"]
        ended = run_cli([*argv, "--workers", "0", "--device", "cpu"], tmp_path / f"{ranks}", ranks=ranks)
        assert [one.code for one in ended] == [0] * ranks, ended[0].text
        assert "3 of 3 videos evaluated\n" in ended[0].text
        assert all("videos evaluated" not in one.text for one in ended[1:])
        results.append(json.loads(output.read_text()))
    one, two = results
    assert (one["videos"], one["expected"]) == (3, 3)
    figures = ("top1", "top5", "clip_top1", "mean_class_accuracy", "loss", "videos", "expected")
    assert [one[name] for name in figures] == [two[name] for name in figures]


def test_all_stop_early_together(videos, tmp_path):
    argv = ["finetune", str(videos), "--output", str(tmp_path / "run"), *NET.split()]
    flags = ["--batch-size", "2", "--epochs", "9", "--patience", "1", "--lr", "0"]
    ended = run_cli([*argv, *flags], tmp_path, ranks=2)
    assert [one.code for one in ended] == [0, 0], ended[0].text
    stopped = len(rows(tmp_path / "run"))
    assert stopped < 9
    assert f"stopped after epoch {stopped}: none of the last 1 was better" in ended[0].text
    ended = run_cli([*argv, "--resume"], tmp_path, ranks=2)
    assert f"is finished: it stopped early, after epoch {stopped}" in ended[0].text


def test_weights_divided_among_processes(videos, tmp_path):
    flags = f"{TRANSFORMER} --opt adamw --epochs 1 --batch-size 2"
    whole = train(videos, tmp_path / "ddp", flags, ranks=2)
    flags += " --fsdp --save-every 1 --resume auto"
    argv = ["finetune", str(videos), "--output", str(tmp_path / "fsdp"), *flags.split()]
    run_cli(argv, tmp_path, ranks=2, arrange={1: kill_before_update(2)})
    divided = train(videos, tmp_path / "fsdp", flags, ranks=2)
    assert divided.keys() == {2}  # it went on after the first
    for update in divided:
        assert divided[update] == pytest.approx(whole[update], rel=1e-3)
    ours, theirs = (load_file(tmp_path / name / "last.safetensors") for name in ("fsdp", "ddp"))
    assert {name: tensor.shape for name, tensor in ours.items()} == {name: t.shape for name, t in theirs.items()}
    assert rows(tmp_path / "fsdp")[-1]["val_loss"] == pytest.approx(rows(tmp_path / "ddp")[-1]["val_loss"], rel=1e-2)


@pytest.mark.parametrize(
    ("name", "block", "inside"),
    [
        ("sifa_transformer_nano", "layers.2", "layers.3.blocks.0.mlp"),  # blocks of the last stage are large
        ("sifa_net_r50", "layer3.2", "layer3.2.conv1"),
        ("timm:vit_tiny_patch16_224", "trunk.blocks.3", "trunk.blocks.3.attn"),
    ],
)
def test_units_to_divide_are_blocks(name, block, inside):
    model = sifa_zoo.create_model(name, num_classes=2, num_frames=4, device="meta")
    found = units(model)
    assert block in found
    assert (inside in found) is (name == "sifa_transformer_nano")
    assert not [unit for unit in found if any(unit.startswith(f"{other}.") for other in found)]
    assert set(found) <= set(called_modules(model))


def say_hello(results: Path) -> None:
    with process_group("cpu"):
        values = [gather_rows([rank(), "row"]), broadcast(f"from {rank()}"), all_sum(rank() + 1, 0.5), world_size()]
        all_sum(0.0)
    (results / f"{os.environ['RANK']}.txt").write_text(repr(values))


def test_what_processes_exchange(tmp_path):
    assert run_functions([partial(say_hello, tmp_path)] * 2, tmp_path) == [0, 0]
    expected = repr([[0, "row", 1, "row"], "from 0", [3.0, 1.0], 2])
    assert [(tmp_path / f"{number}.txt").read_text() for number in range(2)] == [expected] * 2


def wait_for_a_silent_one(results: Path) -> None:
    try:
        with process_group("cpu", timeout=timedelta(seconds=2)):
            if rank() == 1:
                time.sleep(20)
            all_sum(0.0)
    except PeerError as error:
        (results / "error.txt").write_text(str(error))
        raise SystemExit(3) from error


def test_a_process_that_does_not_answer_is_given_up(tmp_path):
    codes = run_functions([partial(wait_for_a_silent_one, tmp_path)] * 2, tmp_path, enough=1)
    assert codes[0] == 3
    assert (tmp_path / "error.txt").read_text() == (
        "rank 0: another process of the run has ended (see its message) or has not answered for 2 s"
    )


def fail_on_the_writer(results: Path) -> None:
    try:
        with process_group("cpu"):
            on_writer(int, "no number")
    except (ValueError, PeerError) as error:
        (results / f"{os.environ['RANK']}.txt").write_text(f"{type(error).__name__}: {error}")


def test_an_error_of_the_writer_is_reported_once(tmp_path):
    assert run_functions([partial(fail_on_the_writer, tmp_path)] * 2, tmp_path) == [0, 0]
    errors = [(tmp_path / f"{number}.txt").read_text() for number in range(2)]
    assert errors[0].startswith("ValueError: ")
    assert errors[1] == "PeerError: rank 1: another process of the run has ended (see its message)"


def test_alone_everything_is_plain():
    with process_group("cpu") as device:
        assert device == torch.device("cpu")
        assert (gather_rows([1]), broadcast(2), all_sum(3), on_writer(int, "4")) == ([1], 2, [3.0], 4)
        assert (rank(), world_size()) == (0, 1)
        all_sum(0.0)
