"""The commands that apply a trained model to videos: `predict` and `features`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from sifa_zoo.cli.flags import (
    WEIGHTS_HELP,
    Commands,
    add_device,
    add_settings,
    check_writable,
    flags_of,
    given,
)
from sifa_zoo.config import EvalConfig
from sifa_zoo.files import check_folder

if TYPE_CHECKING:
    from sifa_zoo.inference.predict import Prediction
    from sifa_zoo.inference.stream import WindowScores

_PICTURES = (".png", ".jpg", ".jpeg", ".webp")
_LENGTH = "frames, such as 16, or seconds, such as 2.5s"


def add_commands(commands: Commands) -> None:
    """Add this module's commands to the parser of `sifa-zoo`."""
    _add_predict(commands.add_parser("predict", help="predict the classes of videos, or of a stream over time"))
    _add_features(commands.add_parser("features", help="extract features of videos over time"))


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_predict)
    parser.add_argument("videos", metavar="VIDEO", nargs="*", help="video files, folders of them, or patterns")
    _add_weights(parser)
    parser.add_argument("--topk", type=int, default=5, help="classes to print (default: 5)")
    parser.add_argument("--csv", metavar="FILE", help="also write a table; for a stream, of its segments")
    parser.add_argument("--json", metavar="FILE", help="also write JSON; for a stream, a line per window and segment")
    parser.add_argument("--picture", metavar="FILE", help="draw the clip's frames and the scores")
    add_settings(parser, EvalConfig, "scoring of videos")
    group = parser.add_argument_group("stream")
    stream_help = "predict over time: a long video, a camera such as /dev/video0, a URL, or - for standard input"
    group.add_argument("--stream", metavar="SOURCE", help=stream_help)
    _add_windows(group, usual_hop="half a window")


def _add_features(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_features)
    parser.add_argument("videos", metavar="VIDEO", nargs="+", help="video files, folders of them, or patterns")
    _add_weights(parser)
    parser.add_argument("--batch-size", type=int, default=8, help="clips per forward pass (default: 8)")
    output_help = ".npy or .safetensors file; for several videos, a folder for a .safetensors file of each"
    parser.add_argument("--output", metavar="OUT", required=True, help=output_help)
    per_help = "a row per window, or per time step (four frames) in it (default: window)"
    parser.add_argument("--per", choices=("window", "step"), default="window", help=per_help)
    _add_windows(parser, usual_hop="one window")


def _add_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="WEIGHTS", required=True, help=WEIGHTS_HELP)
    add_device(parser)


def _add_windows(parser: argparse._ActionsContainer, *, usual_hop: str) -> None:
    parser.add_argument("--window", metavar="LENGTH", help=f"{_LENGTH} (default: the span of the model's clip)")
    parser.add_argument("--hop", metavar="LENGTH", help=f"distance between windows (default: {usual_hop})")


def _predict(args: argparse.Namespace) -> int:
    check_writable(args.csv, suffixes=(".csv",))
    check_writable(args.json, suffixes=(".json", ".jsonl"))
    if args.stream:
        if args.videos or args.picture:
            raise ValueError("--stream takes one source, and no videos or --picture besides")
        if flags := " ".join(flags_of(given(args, EvalConfig))):
            raise ValueError(f"{flags}: for videos, not for --stream, whose windows are one view each; leave it out")
        return _predict_stream(args)
    if not args.videos:
        raise ValueError("name videos, folders or patterns, or a --stream")
    if flags := " ".join(flags_of({"window": args.window, "hop": args.hop})):
        raise ValueError(f"{flags}: for a --stream only; name the video with --stream, or leave it out")
    return _predict_videos(args)


def _predict_videos(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from sifa_zoo.evaluation.charts import draw_prediction, need_matplotlib, write_picture
    from sifa_zoo.inference.predict import clip_frames, find_videos, predict_videos
    from sifa_zoo.runtime.checkpoint import clip_config, load_run
    from sifa_zoo.runtime.devices import pick_device

    check_writable(args.picture, suffixes=_PICTURES)
    if args.picture:
        need_matplotlib()
    how = EvalConfig(**given(args, EvalConfig))
    videos = find_videos(args.videos)
    if args.picture and len(videos) > 1:
        raise ValueError(f"--picture draws one video, got {len(videos)}")
    if len(videos) == 1:
        how = replace(how, workers=0)  # starting a process to decode one video does not pay
    model = load_run(args.model, pick_device(args.device))
    predictions = predict_videos(model, videos, how, topk=args.topk)
    done: list[Prediction] = []
    try:
        for prediction in tqdm(predictions, total=len(videos), unit="video", leave=False, disable=_no_bar(videos)):
            done.append(prediction)
            _print_prediction(prediction)
    finally:  # an interrupted prediction keeps what it has
        _write_tables(args, done)
    if args.picture and done[0].scores:
        write_picture(draw_prediction(clip_frames(videos[0], clip_config(model)), done[0].scores), args.picture)
    bad = sum(prediction.error is not None for prediction in done)
    if bad and len(done) > 1:
        print(f"{bad} of {len(done)} videos could not be decoded", file=sys.stderr)
    return 1 if bad else 0


def _write_tables(args: argparse.Namespace, done: list[Prediction]) -> None:
    from sifa_zoo.files import write_files
    from sifa_zoo.inference.tables import predictions_csv, predictions_json

    if done:
        files = {args.csv: predictions_csv(done), args.json: predictions_json(done)}
        write_files({Path(file): content for file, content in files.items() if file})


def _no_bar(videos: list[str]) -> bool | None:
    """Whether to leave out the progress bar; None leaves it out unless stderr is a terminal."""
    return True if len(videos) == 1 else None


def _print_prediction(prediction: Prediction) -> None:
    from tqdm import tqdm

    if prediction.error:
        tqdm.write(f"error: {prediction.error}", file=sys.stderr)
        return
    lines = [f"  {100 * score:5.1f} %  {name}" for name, score in prediction.scores]
    tqdm.write("\n".join([prediction.path, *lines]))


def _predict_stream(args: argparse.Namespace) -> int:
    from contextlib import ExitStack

    from sifa_zoo.inference.stream import merge, predict_stream
    from sifa_zoo.inference.tables import SEGMENT_COLUMNS, segment_csv, segment_json
    from sifa_zoo.runtime.checkpoint import load_run
    from sifa_zoo.runtime.devices import pick_device

    model = load_run(args.model, pick_device(args.device))
    options = {"window": args.window, "hop": args.hop, "topk": args.topk}
    windows = _until_interrupted(predict_stream(model, args.stream, **options))
    first = list(islice(windows, 1))  # if the source cannot be read, files that are there stay as they are
    with ExitStack() as files:
        table = files.enter_context(open(args.csv, "w", encoding="utf-8", newline="")) if args.csv else None
        lines = files.enter_context(open(args.json, "w", encoding="utf-8")) if args.json else None
        _write(table, SEGMENT_COLUMNS)
        for segment in merge(_recorded(chain(first, windows), lines)):
            seconds = f"{segment.start:9.2f} - {segment.end:9.2f} s"
            print(f"{seconds}  {100 * segment.score:5.1f} %  {segment.label}", flush=True)
            _write(table, segment_csv(segment))
            _write(lines, segment_json(segment))
    return 0


def _until_interrupted(windows: Iterator[WindowScores]) -> Iterator[WindowScores]:
    """The windows until Ctrl-C, which is how a camera is stopped."""
    try:
        yield from windows
    except KeyboardInterrupt:
        return


def _recorded(windows: Iterable[WindowScores], file: TextIO | None) -> Iterator[WindowScores]:
    """The windows, each written to the file, if there is one, before it is used."""
    from sifa_zoo.inference.tables import window_json

    for window in windows:
        _write(file, window_json(window))
        yield window


def _write(file: TextIO | None, line: str) -> None:
    """Writes a line to the file, if there is one, so that others can read it at once."""
    if file is not None:
        file.write(line)
        file.flush()


def _features(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from sifa_zoo.files import write_files
    from sifa_zoo.inference.features import extract, features_files
    from sifa_zoo.inference.predict import find_below
    from sifa_zoo.runtime.checkpoint import load_run
    from sifa_zoo.runtime.devices import pick_device
    from sifa_zoo.video.load import VideoError

    found = find_below(args.videos)
    videos, outputs = list(found), _feature_paths(found, args.output)
    model = load_run(args.model, pick_device(args.device))
    options = {name: getattr(args, name) for name in ("per", "window", "hop", "batch_size")}
    bad = 0
    for video, output in zip(tqdm(videos, unit="video", leave=False, disable=_no_bar(videos)), outputs, strict=True):
        try:
            features = extract(model, video, weights=args.model, **options)
        except VideoError as error:
            tqdm.write(f"error: {error}", file=sys.stderr)
            bad += 1
            continue
        output.parent.mkdir(parents=True, exist_ok=True)
        write_files(features_files(features, output))
        rows, width = features.values.shape
        tqdm.write(f"{output}: {rows} rows of {width} features, {features.metadata['fps']:g} fps")
    return 1 if bad else 0


def _feature_paths(videos: dict[str, Path], output: str) -> list[Path]:
    """The file for the features of each video: `output` itself, or the video's path in its source below that folder."""
    if Path(output).suffix in (".npy", ".safetensors"):
        if len(videos) > 1:
            raise ValueError(f"{output} holds the features of one video, got {len(videos)}; name a folder")
        check_writable(output)
        return [Path(output)]
    paths = [Path(output) / place.with_suffix(".safetensors") for place in videos.values()]
    if len(videos) == 1:
        raise ValueError(f"the features of a video go to a .npy or .safetensors file, got {output}")
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise ValueError(
            f"the features of two videos would both be written to {twice}; name the folder above both, or extract them "
            "one by one"
        )
    check_folder(output)
    return paths
