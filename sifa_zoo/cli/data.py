"""The commands about data."""

from __future__ import annotations

import argparse

from sifa_zoo.cli.flags import Commands


def add_commands(commands: Commands) -> None:
    """Add this module's commands to the parser of `sifa-zoo`."""
    text = "write a small generated data set: eight motions to tell apart"
    _add_motion_clips(commands.add_parser("motion-clips", help=text))


def _add_motion_clips(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_motion_clips)
    parser.add_argument("output", metavar="OUT", help="folder to write")
    parser.add_argument("--num-train", type=int, default=320, help="training videos (default: 320)")
    parser.add_argument("--num-val", type=int, default=80, help="validation videos (default: 80)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generator (default: 0)")
    parser.add_argument("--hold", type=int, default=1, help="frames for which the picture stands still (default: 1)")


def _motion_clips(args: argparse.Namespace) -> int:
    from sifa_zoo.data.motion import write_motion_clips

    write_motion_clips(args.output, num_train=args.num_train, num_val=args.num_val, seed=args.seed, hold=args.hold)
    print(f"wrote {args.output}")
    return 0
