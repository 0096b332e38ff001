"""The command that names the classes of videos."""

from __future__ import annotations

import argparse
import sys

from sifa_zoo.cli.flags import Commands, check_writable


def add_commands(commands: Commands) -> None:
    """Add this module's commands to the parser of `sifa-zoo`."""
    _add_predict(commands.add_parser("predict", help="classes of videos"))


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_predict)
    parser.add_argument("videos", metavar="VIDEO", nargs="+", help="video files")
    parser.add_argument("--model", metavar="RUN", required=True, help="run folder, weights file, or name of weights")
    parser.add_argument("--num-clips", type=int, default=1, help="clips per video, scores averaged (default: 1)")
    parser.add_argument("--topk", type=int, default=5, help="classes to print (default: 5)")
    parser.add_argument("--picture", metavar="FILE", help="draw the clip's frames and the scores")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: the GPU if there is one)")


def _predict(args: argparse.Namespace) -> int:
    from sifa_zoo.data.decode import VideoError
    from sifa_zoo.engine.checkpoint import clip_config, load_run
    from sifa_zoo.engine.device import pick_device
    from sifa_zoo.engine.predict import predict
    from sifa_zoo.visualize import clip_frames, draw_prediction

    if args.picture and len(args.videos) > 1:
        raise ValueError(f"--picture draws one video, got {len(args.videos)}")
    check_writable(args.picture, suffixes=(".png", ".jpg", ".jpeg", ".webp"))
    model = load_run(args.model, pick_device(args.device))
    failed = False
    for video in args.videos:
        try:
            scores = predict(model, video, num_clips=args.num_clips, topk=args.topk)
        except VideoError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            failed = True
            continue
        print(video)
        for name, score in scores:
            print(f"  {100 * score:5.1f} %  {name}")
        if args.picture:
            draw_prediction(clip_frames(video, clip_config(model)), scores).save(args.picture)
    return 1 if failed else 0
