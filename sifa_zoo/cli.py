"""The command `sifa-zoo`. Flags come from the settings' dataclasses; torch is imported when a command runs."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import json
import os
import platform
import shlex
import signal
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from sifa_zoo import __version__
from sifa_zoo.config import ClipConfig, TrainConfig

_INTERRUPTED = 130  # as shells report Ctrl-C


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 2 for a mistake in the call, 1 for an incomplete result or a full disk."""
    args = _parser().parse_args(argv)
    try:
        return args.command(args)
    except BrokenPipeError:  # `sifa-zoo list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, TypeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED


def _finetune(args: argparse.Namespace) -> int:
    from sifa_zoo.engine.train import finetune

    received: list[int] = []

    def interrupt(number: int, _frame: Any) -> NoReturn:
        received.append(number)
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        finetune(
            args.data,
            output=args.output,
            model=args.model,
            val=args.val,
            clip=_given(args, ClipConfig),
            train=_given(args, TrainConfig),
            model_args=dict(args.model_args),
            checkpoint=args.checkpoint,
            pretrained=args.pretrained,
            resume=args.resume,
            device=args.device,
        )
    except (KeyboardInterrupt, RuntimeError):  # the latter where the signal ended a worker, too
        if not received:
            raise
        print(f"interrupted: {_how_to_resume(args)}", file=sys.stderr)
        return _INTERRUPTED
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return 0


def _eval(args: argparse.Namespace) -> int:
    from sifa_zoo.engine.evaluate import evaluate_run

    options = {name: getattr(args, name) for name in ("split", "num_clips", "batch_size", "workers", "device")}
    _check_writable(args.output)
    result = evaluate_run(args.run, args.data, **options)
    for line in result["failed"]:
        print(f"error: {line}", file=sys.stderr)
    complete = result["videos"] == result["expected"]
    print(f"{args.run} on {args.data}: {result['protocol']}")
    print(f"{result['videos']} of {result['expected']} videos evaluated{'' if complete else ' - INCOMPLETE'}")
    print(f"top-1 {result['top1']:.2f} %, top-5 {result['top5']:.2f} %, loss {result['loss']:.4f}")
    if args.output:
        Path(args.output).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if complete else 1


def _predict(args: argparse.Namespace) -> int:
    from sifa_zoo.data.decode import VideoError
    from sifa_zoo.engine.checkpoint import clip_config, load_run
    from sifa_zoo.engine.device import pick_device
    from sifa_zoo.engine.predict import predict
    from sifa_zoo.visualize import clip_frames, draw_prediction

    if args.picture and len(args.videos) > 1:
        raise ValueError(f"--picture draws one video, got {len(args.videos)}")
    _check_writable(args.picture, suffixes=(".png", ".jpg", ".jpeg", ".webp"))
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


def _list(args: argparse.Namespace) -> int:
    from sifa_zoo.registry import list_models

    names = list_models(args.filter, pretrained=args.pretrained)
    if not names:
        kind = "no weights" if args.pretrained else "no model"
        print(f"{kind}{f' matching {args.filter!r}' if args.filter else ''} in this version", file=sys.stderr)
        return 1
    print("\n".join(names))
    return 0


def _convert(args: argparse.Namespace) -> int:
    from sifa_zoo.engine.convert import convert_file

    names = Path(args.class_names).read_text(encoding="utf-8-sig").splitlines() if args.class_names else []
    _check_writable(args.output, suffixes=(".safetensors",))
    options = {"model": args.model, "class_names": [n for n in names if n.strip()], "model_args": dict(args.model_args)}
    output, kind = convert_file(args.checkpoint, args.output, **options)
    print(f"wrote {output} from a {kind} checkpoint")
    return 0


def _publish(args: argparse.Namespace) -> int:
    from sifa_zoo.engine.checkpoint import write_files
    from sifa_zoo.engine.publish import publish
    from sifa_zoo.manifest import manifest_with, parse_manifest

    if args.manifest:  # read before the upload, so that a mistake costs nothing
        parse_manifest(Path(args.manifest).read_text(encoding="utf-8"))
    names = ("licence", "trained_on", "evaluations", "tag", "private")
    name, entry = publish(args.run, args.repo, **{option: getattr(args, option) for option in names})
    print(f"published {args.repo}@{entry.revision}")
    if args.manifest:
        path = Path(args.manifest)
        write_files({path: manifest_with(path.read_text(encoding="utf-8"), name, entry).encode()})
        print(f"wrote {name} to {path}")
    else:
        print(json.dumps({name: entry.to_dict()}, indent=2, ensure_ascii=False))
    return 0


def _verify(args: argparse.Namespace) -> int:
    from sifa_zoo.engine.verify import verify
    from sifa_zoo.hub import WeightsError
    from sifa_zoo.manifest import read_manifest

    failed = False
    for name in args.names or [name for name, entry in read_manifest().items() if entry.status == "embedded"]:
        try:
            found = verify(name, cache_dir=args.cache_dir)
        except WeightsError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            failed = True
            continue
        logits = "no logits are stored" if found.deviation is None else f"logits {found.deviation:.1g} off"
        at = f" at {found.revision}" if found.revision else ""
        print(f"{name}{at}: {found.bytes} bytes, sha256 {found.sha256}, loads, {logits}", flush=True)
    return 1 if failed else 0


def _motion_clips(args: argparse.Namespace) -> int:
    from sifa_zoo.data.motion import write_motion_clips

    write_motion_clips(args.output, num_train=args.num_train, num_val=args.num_val, seed=args.seed, hold=args.hold)
    print(f"wrote {args.output}")
    return 0


def _build_ops(args: argparse.Namespace) -> int:
    from sifa_zoo import ops

    try:
        for built in ops.build(args.device, force=args.force):
            print(built)
    except ops.BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _doctor(_args: argparse.Namespace) -> int:
    from sifa_zoo.ops import native

    for name, value in (_versions() | native.report()).items():
        print(f"{name:16} {value}")
    return 0


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"sifa_zoo": __version__, "Python": platform.python_version(), "machine": platform.platform()}
    for package in ("torch", "torchvision", "timm", "huggingface_hub", "safetensors", "av", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sifa-zoo", description="Video models with inter-frame attention.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_finetune(commands.add_parser("finetune", help="fine-tune a model on labelled videos"))
    _add_eval(commands.add_parser("eval", help="accuracy of a run on labelled videos"))
    _add_predict(commands.add_parser("predict", help="classes of videos"))
    _add_list(commands.add_parser("list", help="names of models"))
    _add_convert(commands.add_parser("convert", help="make a weights file of somebody else's checkpoint"))
    _add_publish(commands.add_parser("publish", help="upload a run to the Hugging Face Hub"))
    _add_verify(commands.add_parser("verify", help="check weights: hash, loading, stored logits"))
    _add_motion_clips(
        commands.add_parser("motion-clips", help="write a small generated data set: eight motions to tell apart")
    )
    _add_build_ops(commands.add_parser("build-ops", help="compile the operator's native kernels"))
    commands.add_parser("doctor", help="versions, and which kernels run here and why").set_defaults(command=_doctor)
    return parser


def _add_finetune(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_finetune)
    parser.add_argument(
        "data", metavar="DATA", help="folder with class folders in train/ and val/, or with train.txt and val.txt"
    )
    parser.add_argument("--output", metavar="RUN", required=True, help="run folder; new or empty, unless --resume")
    parser.add_argument(
        "--model", metavar="NAME", help="a name from `sifa-zoo list`, or of its weights; a checkpoint knows it"
    )
    parser.add_argument("--val", metavar="DATA", help="validation videos, if DATA is a single list or class folder")
    parser.add_argument(
        "--checkpoint", metavar="RUN", help="run folder, weights file or hf-hub:OWNER/NAME to start from"
    )
    parser.add_argument("--pretrained", action="store_true", help="start from the model's default weights")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --output, with its settings")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: the GPU if there is one)")
    _add_model_args(parser)
    _add_settings(parser.add_argument_group("clip (default: what the checkpoint or the model says)"), ClipConfig)
    _add_settings(parser.add_argument_group("training"), TrainConfig, show_defaults=True)


def _add_eval(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_eval)
    parser.add_argument("run", metavar="RUN", help="run folder, weights file, or name of weights")
    parser.add_argument("data", metavar="DATA", help="as for finetune; or a single list or class folder")
    parser.add_argument("--split", default="val", choices=("train", "val"), help="part of DATA (default: val)")
    parser.add_argument("--num-clips", type=int, help="clips per video (default: as the run was validated)")
    parser.add_argument("--batch-size", type=int, default=8, help="clips per step (default: 8)")
    parser.add_argument("--workers", type=int, default=2, help="processes that decode videos (default: 2)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: the GPU if there is one)")
    parser.add_argument("--output", metavar="FILE", help="write the result to a JSON file, too")


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_predict)
    parser.add_argument("videos", metavar="VIDEO", nargs="+", help="video files")
    parser.add_argument("--model", metavar="RUN", required=True, help="run folder, weights file, or name of weights")
    parser.add_argument("--num-clips", type=int, default=1, help="clips per video, scores averaged (default: 1)")
    parser.add_argument("--topk", type=int, default=5, help="classes to print (default: 5)")
    parser.add_argument("--picture", metavar="FILE", help="draw the clip's frames and the scores")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: the GPU if there is one)")


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_list)
    parser.add_argument("filter", metavar="FILTER", nargs="?", default="", help="pattern such as 'sifa_net*'")
    parser.add_argument("--pretrained", action="store_true", help="only names with weights that load today")


def _add_convert(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_convert)
    checkpoint_help = "checkpoint of the published SIFA code, or of a 2D ResNet or Swin in timm's names"
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help=checkpoint_help)
    parser.add_argument("--model", metavar="NAME", required=True, help="a name from `sifa-zoo list`")
    parser.add_argument("--output", metavar="FILE", required=True, help="safetensors file to write")
    parser.add_argument("--class-names", metavar="FILE", help="one name per line, in the order of the head")
    _add_model_args(parser)


def _add_publish(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_publish)
    parser.add_argument("run", metavar="RUN", help="run folder, or weights file of one")
    parser.add_argument("--repo", metavar="OWNER/NAME", required=True, help="repository; created if there is none")
    parser.add_argument("--licence", required=True, help="of the weights, as the Hub writes it, such as apache-2.0")
    parser.add_argument("--trained-on", metavar="TEXT", required=True, help="the training data, in words")
    eval_help = "results of `sifa-zoo eval --output` (default: the validation in training)"
    parser.add_argument("--eval", dest="evaluations", metavar="FILE", nargs="+", default=[], help=eval_help)
    parser.add_argument("--tag", help="of the manifest entry (default: the repository's name)")
    parser.add_argument("--private", action="store_true", help="create the repository private")
    parser.add_argument("--manifest", metavar="FILE", help="write the entry there instead of printing it")


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_verify)
    names_help = "architecture.tag, hf-hub:OWNER/NAME or local-dir:PATH (default: all that ship with the package)"
    parser.add_argument("names", metavar="WEIGHTS", nargs="*", help=names_help)
    parser.add_argument("--cache-dir", metavar="FOLDER", help="where downloads are kept (default: the Hub's cache)")


def _add_model_args(parser: argparse.ArgumentParser) -> None:
    text = "arguments of the model's constructor, such as dilation=2"
    parser.add_argument("--model-args", metavar="KEY=VALUE", nargs="+", type=_key_value, default=[], help=text)


def _add_motion_clips(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_motion_clips)
    parser.add_argument("output", metavar="OUT", help="folder to write")
    parser.add_argument("--num-train", type=int, default=320, help="training videos (default: 320)")
    parser.add_argument("--num-val", type=int, default=80, help="validation videos (default: 80)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generator (default: 0)")
    parser.add_argument("--hold", type=int, default=1, help="frames for which the picture stands still (default: 1)")


def _add_build_ops(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_build_ops)
    device_help = "kernels to compile (default: cpu, and cuda if a GPU is visible)"
    parser.add_argument("--device", choices=("cpu", "cuda"), help=device_help)
    parser.add_argument("--force", action="store_true", help="compile even if they are there")


def _add_settings(group: argparse._ArgumentGroup, config: type, *, show_defaults: bool = False) -> None:
    """One flag per field of a settings dataclass; a flag that is not given is absent from the namespace."""
    types = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        text = field.metadata["help"] + (f" (default: {field.default})" if show_defaults else "")
        options: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS, "help": text.replace("%", "%%")}
        if types[field.name] is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif isinstance(field.default, tuple):
            options |= {"type": float, "nargs": len(field.default)}
        else:
            options["type"] = types[field.name]
        group.add_argument(f"--{field.name.replace('_', '-')}", **options)


def _check_writable(file: str | None, *, suffixes: tuple[str, ...] = ()) -> None:
    """Refuse a file that could not be written, before the work that it is to hold."""
    if file is None:
        return
    if suffixes and Path(file).suffix.lower() not in suffixes:
        raise ValueError(f"expected a file ending in {', '.join(suffixes)}, got {file}")
    if not os.access(Path(file).parent, os.W_OK):
        raise ValueError(f"cannot write {file}: the folder does not exist or is read-only")


def _given(args: argparse.Namespace, config: type) -> dict[str, Any]:
    """The settings of a dataclass that were given as flags."""
    return {f.name: getattr(args, f.name) for f in dataclasses.fields(config) if hasattr(args, f.name)}


def _key_value(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, got {text!r}")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


def _how_to_resume(args: argparse.Namespace) -> str:
    if not (Path(args.output) / "config.json").exists():
        return "training had not started, nothing was saved"
    saved = (Path(args.output) / "state.pt").exists()
    command = shlex.join(["sifa-zoo", "finetune", args.data, "--output", args.output, "--resume"])
    return f"{'the last finished epoch is saved' if saved else 'no epoch had finished'}; continue with: {command}"


if __name__ == "__main__":
    sys.exit(main())
