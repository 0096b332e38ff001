"""The commands about data: check it, make smaller copies, set videos aside for validation, generate some."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sifa_zoo.cli.flags import Commands, add_device, add_settings, check_writable, flags_of, given, positive_int
from sifa_zoo.config import ClipConfig, ReadConfig, ResizeConfig

if TYPE_CHECKING:
    from sifa_zoo.datasets.shard_list import ShardList
    from sifa_zoo.datasets.videos import VideoList
    from sifa_zoo.preparing.findings import Finding

_MOST_SHOWN = 50


def add_commands(commands: Commands) -> None:
    """Add this module's commands to the parser of `sifa-zoo`."""
    _add_check(commands.add_parser("check", help="find what is wrong with a data set, and whether decoding keeps up"))
    _add_resize(commands.add_parser("resize", help="make smaller copies of a data set, which decode faster"))
    _add_split(commands.add_parser("split", help="write lists that set videos aside for validation"))
    motion_help = "generate a small data set of eight motions to tell apart"
    _add_motion_clips(commands.add_parser("motion-clips", help=motion_help))


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_check)
    parser.add_argument("data", metavar="DATA", help="as for finetune")
    parser.add_argument("--val", metavar="DATA", help="validation videos, if DATA has none")
    model_help = "compare the speed of decoding with that of training this model; clips are cut as it takes them"
    parser.add_argument("--model", metavar="NAME", help=model_help)
    parser.add_argument("--quick", action="store_true", help="decode no more than numbering frames needs")
    parser.add_argument("--csv", metavar="FILE", help="write all findings to a table")
    parser.add_argument("--workers", type=positive_int, metavar="N", help="videos at a time (default: one per core)")
    parser.add_argument(
        "--batch-size", type=positive_int, metavar="N", default=8, help="clips per step of training (default: 8)"
    )
    add_device(parser)
    add_settings(parser, ReadConfig, "data")
    add_settings(parser, ClipConfig, "clip (default: as the model says)")


def _check(args: argparse.Namespace) -> int:
    from sifa_zoo.config import usable_cores
    from sifa_zoo.datasets.reading import read_splits_or_shards
    from sifa_zoo.datasets.shard_list import ShardList
    from sifa_zoo.preparing.check import check_splits
    from sifa_zoo.runtime.checkpoint import usual_clip

    check_writable(args.csv, suffixes=(".csv",))
    reading = ReadConfig(**given(args, ReadConfig))
    clip = dataclasses.replace(usual_clip(args.model) if args.model else ClipConfig(), **given(args, ClipConfig))
    splits = read_splits_or_shards(args.data, val=args.val, how=dataclasses.replace(reading, allow_missing=True))
    for split, videos in splits.items():
        size = f"{len(videos.shards)} shards" if isinstance(videos, ShardList) else f"{len(videos)} videos"
        print(f"{split}: {size}, {len(videos.class_names)} classes, {videos.format}")
    if "val" not in splits:
        print("no validation videos: set some aside with `sifa-zoo split`, or name some with --val")
    findings: list[Finding] = []
    try:
        findings.extend(check_splits(splits, clip=clip, workers=args.workers or usable_cores(), quick=args.quick))
    except KeyboardInterrupt:
        _report(findings, args.csv)
        print("not all videos were checked")
        raise
    _report(findings, args.csv)
    _print_speed(args, splits["train"] if "train" in splits else splits["videos"], clip)
    allowed = {"missing"} if reading.allow_missing else set()
    fatal = any(finding.fatal and finding.kind not in allowed for finding in findings)
    print("training would stop, see above" if fatal else "nothing here stops training")
    return 1 if fatal else 0


def _report(findings: Sequence[Finding], file: str | None) -> None:
    """Prints the findings, and writes all of them to the file, if there is one."""
    from sifa_zoo.files import write_files
    from sifa_zoo.preparing.findings import finding_lines, finding_table, findings_csv

    print("\n".join([*finding_lines(findings, most=_MOST_SHOWN), "", *finding_table(findings), ""]))
    if file:
        write_files({Path(file): findings_csv(findings)})


def _print_speed(args: argparse.Namespace, videos: VideoList | ShardList, clip: ClipConfig) -> None:
    """Prints what a worker delivers and, with a model, what training takes and what to do if that is more."""
    from sifa_zoo.config import usable_cores
    from sifa_zoo.datasets.shard_list import ShardList
    from sifa_zoo.preparing.speed import (
        advice,
        copied_short_side,
        loading_rate,
        median_short_side,
        resize_command,
        training_rate,
    )
    from sifa_zoo.registry.create import create_model
    from sifa_zoo.runtime.devices import pick_device

    loading = loading_rate(videos, clip)
    if not loading:
        return
    print(f"decoding: a worker delivers {loading:.1f} clips/s ({clip.protocol})")
    if args.model:
        device = pick_device(args.device)
        name, num_classes = args.model.partition(".")[0], len(videos.class_names)
        model = create_model(name, num_classes=num_classes, num_frames=clip.num_frames, img_size=clip.img_size)
        training = training_rate(model, clip, batch_size=args.batch_size, device=device)
        print(f"training: {args.model} takes {training:.1f} clips/s ({device}, batches of {args.batch_size})")
        reading = {"val": args.val, **given(args, ReadConfig)}
        large = median_short_side(videos) > copied_short_side(clip)
        in_shards = isinstance(videos, ShardList)
        command = (
            "make them before you write shards" if in_shards else resize_command(args.data, clip, *flags_of(reading))
        )
        resize = command if large else None
        print(advice(loading, training, cores=usable_cores(), resize=resize))


def _add_resize(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_resize)
    parser.add_argument("data", metavar="DATA", help="as for finetune; the originals are only read")
    parser.add_argument("output", metavar="OUT", help="folder for the copies; an interrupted command continues there")
    parser.add_argument("--val", metavar="DATA", help="validation videos, if DATA has none")
    parser.add_argument("--workers", type=positive_int, metavar="N", help="videos at a time (default: one per core)")
    add_settings(parser, ReadConfig, "data")
    add_settings(parser, ResizeConfig, "copies", show_defaults=True)


def _resize(args: argparse.Namespace) -> int:
    from sifa_zoo.config import usable_cores
    from sifa_zoo.datasets.reading import read_splits
    from sifa_zoo.preparing.resize import resize_videos

    config = ResizeConfig(**given(args, ResizeConfig))
    splits = read_splits(args.data, val=args.val, how=ReadConfig(**given(args, ReadConfig)))
    workers = args.workers or usable_cores()
    try:
        failures = resize_videos(splits, Path(args.data), Path(args.output), config=config, workers=workers)
    except KeyboardInterrupt:
        print("the same command continues where this one stopped", file=sys.stderr)
        raise
    for line in failures:
        print(f"error: {line}", file=sys.stderr)
    total = sum(map(len, splits.values()))
    data = args.output if "val" in splits else Path(args.output, "videos.csv")
    print(f"{total - len(failures)} of {total} videos are in {args.output}; as data, name {data}")
    return 1 if failures else 0


def _add_split(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_split)
    parser.add_argument("data", metavar="DATA", help="class folders or a list, without splits; nothing is moved")
    parser.add_argument("output", metavar="OUT", help="folder for train.csv and val.csv, which finetune takes as data")
    parser.add_argument(
        "--val-share", type=float, default=0.2, help="share of each class that is set aside (default: 0.2)"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other videos (default: 0)")
    add_settings(parser, ReadConfig, "data")


def _split(args: argparse.Namespace) -> int:
    from sifa_zoo.config import usable_cores
    from sifa_zoo.datasets.formats.table import CLASSES, write_table
    from sifa_zoo.datasets.reading import read_videos
    from sifa_zoo.preparing.resize import refuse_within
    from sifa_zoo.preparing.split import split_videos

    output = Path(args.output)
    files = {split: output / f"{split}.csv" for split in ("train", "val")}
    if found := [str(file) for file in (*files.values(), output / CLASSES) if file.exists()]:
        raise ValueError(f"{found[0]} exists already; name another folder")
    videos = read_videos(args.data, how=ReadConfig(**given(args, ReadConfig)))
    refuse_within(output, Path(args.data), {"videos": videos})
    splits = split_videos(videos, val_share=args.val_share, seed=args.seed, workers=usable_cores())
    output.mkdir(parents=True, exist_ok=True)
    for split, chosen in splits.items():
        write_table(files[split], chosen)
        print(f"{files[split]}: {len(chosen)} videos of {int((chosen.counts > 0).sum())} classes")
    return 0


def _add_motion_clips(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_motion_clips)
    parser.add_argument("output", metavar="OUT", help="folder to create")
    parser.add_argument("--num-train", type=int, default=320, help="training videos (default: 320)")
    parser.add_argument("--num-val", type=int, default=80, help="validation videos (default: 80)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generator (default: 0)")
    parser.add_argument("--hold", type=int, default=1, help="frames for which the picture stands still (default: 1)")


def _motion_clips(args: argparse.Namespace) -> int:
    from sifa_zoo.preparing.motion import write_motion_clips

    write_motion_clips(args.output, num_train=args.num_train, num_val=args.num_val, seed=args.seed, hold=args.hold)
    print(f"wrote {args.output}")
    return 0
