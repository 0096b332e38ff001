"""The commands that convert, publish and check weights."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from sifa_zoo.cli.flags import Commands, add_model_args, check_writable


def add_commands(commands: Commands) -> None:
    """Add this module's commands to the parser of `sifa-zoo`."""
    _add_convert(commands.add_parser("convert", help="convert somebody else's checkpoint to a weights file"))
    _add_publish(commands.add_parser("publish", help="upload a run to the Hugging Face Hub"))
    _add_verify(
        commands.add_parser("verify", help="check weights: their hash, that they load, and their stored logits")
    )


def _add_convert(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_convert)
    checkpoint_help = "checkpoint of the published SIFA code, or of a 2D ResNet or Swin with timm's parameter names"
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help=checkpoint_help)
    parser.add_argument("--model", metavar="NAME", required=True, help="name of a model, as `sifa-zoo list` prints it")
    parser.add_argument("--output", metavar="FILE", required=True, help="safetensors file to write")
    parser.add_argument(
        "--class-names", metavar="FILE", help="names of the classes, one per line, in the order of the head"
    )
    add_model_args(parser)


def _add_publish(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_publish)
    parser.add_argument("run", metavar="RUN", help="run folder, or weights file of one")
    parser.add_argument("--repo", metavar="OWNER/NAME", required=True, help="repository; created if it does not exist")
    parser.add_argument(
        "--licence", required=True, help="licence of the weights, as the Hub writes it, such as apache-2.0"
    )
    parser.add_argument("--trained-on", metavar="TEXT", required=True, help="the training data, in words")
    eval_help = (
        "folders or .json files from `sifa-zoo eval --output` of these weights (default: validation in training)"
    )
    parser.add_argument("--eval", dest="evaluations", metavar="RESULT", nargs="+", default=[], help=eval_help)
    parser.add_argument("--tag", help="tag of the manifest entry (default: the name of the repository)")
    parser.add_argument("--private", action="store_true", help="create a private repository")
    parser.add_argument("--manifest", metavar="FILE", help="write the entry to this manifest instead of printing it")


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_verify)
    names_help = "architecture.tag, hf-hub:OWNER/NAME or local-dir:PATH (default: all that ship with the package)"
    parser.add_argument("names", metavar="WEIGHTS", nargs="*", help=names_help)
    parser.add_argument("--cache-dir", metavar="FOLDER", help="where downloads are kept (default: the Hub's cache)")


def _convert(args: argparse.Namespace) -> int:
    from sifa_zoo.publishing.conversion import convert_file

    names = Path(args.class_names).read_text(encoding="utf-8-sig").splitlines() if args.class_names else []
    check_writable(args.output, suffixes=(".safetensors",))
    options = {"model": args.model, "class_names": [n for n in names if n.strip()], "model_args": dict(args.model_args)}
    output, kind = convert_file(args.checkpoint, args.output, **options)
    print(f"wrote {output} from a {kind} checkpoint")
    return 0


def _publish(args: argparse.Namespace) -> int:
    from sifa_zoo.files import write_files
    from sifa_zoo.publishing.publish import publish
    from sifa_zoo.weights.manifest import manifest_with, parse_manifest

    if args.manifest:  # before the upload, so that a mistake costs nothing
        check_writable(args.manifest)
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
    from sifa_zoo.publishing.verify import verify
    from sifa_zoo.weights.hub import WeightsError
    from sifa_zoo.weights.manifest import read_manifest

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
