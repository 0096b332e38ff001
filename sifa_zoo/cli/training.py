"""The commands that train, and print recipes."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from sifa_zoo.cli.flags import Commands, add_device, add_model_args, add_settings, given, setting_text, shorten_help
from sifa_zoo.config import AugmentConfig, ClipConfig, ReadConfig, TrainConfig
from sifa_zoo.files import CONFIG, STATE
from sifa_zoo.training.recipes import Recipe, find_recipe, recipes

INTERRUPTED = 130  # the exit code that shells report after Ctrl-C

_EXAMPLES = """\
examples:
  sifa-zoo finetune videos --model sifa_net_r50 --pretrained --recipe small --output runs/mine
  sifa-zoo finetune videos --checkpoint runs/mine --epochs 5 --lr 1e-4 --output runs/longer
  sifa-zoo finetune videos --resume --output runs/mine

`sifa-zoo finetune --help-all` shows every flag; `sifa-zoo recipes` the settings of recipes.
"""
_SHOWN = (
    *("data", "output", "model", "val", "pretrained", "checkpoint", "recipe", "resume"),
    *("num_frames", "frame_stride", "epochs", "batch_size", "lr"),
)


def add_commands(commands: Commands) -> None:
    """Add this module's commands to the parser of `sifa-zoo`."""
    _add_finetune(commands, "fine-tune a model on labelled videos")
    _add_recipes(commands.add_parser("recipes", help="print the settings that --recipe stands for"))


def _add_finetune(commands: Commands, text: str) -> None:
    parser = commands.add_parser(
        "finetune",
        help=text,
        description=text.capitalize() + ".",
        usage="%(prog)s DATA --output RUN [--model NAME] [more flags]",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=_finetune)
    forms = "with class folders in train/ and val/, with lists train.txt and val.txt, or in a format of docs/data.md"
    parser.add_argument("data", metavar="DATA", help=f"folder {forms}")
    parser.add_argument("--output", metavar="RUN", required=True, help="run folder; new or empty, unless resuming")
    model_help = "name of a model, as `sifa-zoo list` prints it, or of weights; a checkpoint brings its own"
    parser.add_argument("--model", metavar="NAME", help=model_help)
    parser.add_argument("--val", metavar="DATA", help="validation videos, if DATA has no splits")
    parser.add_argument("--pretrained", action="store_true", help="start from the model's default weights")
    checkpoint_help = "start from a run folder, weights file or hf-hub:OWNER/NAME"
    parser.add_argument("--checkpoint", metavar="WEIGHTS", help=checkpoint_help)
    known = "; ".join(f"{name}: {recipe.text}" for name, recipe in recipes().items())
    parser.add_argument(
        "--recipe", metavar="NAME", help=f"take the settings of a recipe where no flag says otherwise. {known}"
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        choices=("auto",),
        const=True,
        default=False,
        help="continue the run in --output with its settings; auto: start one if there is none",
    )
    other = parser.add_argument_group("model, device, trackers")
    add_model_args(other)
    add_device(other)
    log_help = "also log to tensorboard or wandb, which must be installed"
    other.add_argument("--log", metavar="NAME", nargs="+", default=[], help=log_help)
    add_settings(parser, ReadConfig, "data")
    add_settings(parser, ClipConfig, "clip (default: as the checkpoint or the model says)")
    add_settings(parser, TrainConfig, show_defaults=True, without=AugmentConfig)
    add_settings(parser, AugmentConfig, show_defaults=True)
    shorten_help(parser, *_SHOWN)


def _add_recipes(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_recipes)
    parser.add_argument("name", metavar="NAME", nargs="?", help="one recipe (default: all, side by side)")


def _finetune(args: argparse.Namespace) -> int:
    from sifa_zoo.runtime.processes import is_first_process
    from sifa_zoo.training.finetune import finetune
    from sifa_zoo.training.stopping import Interrupted

    try:
        finetune(
            args.data,
            output=args.output,
            model=args.model,
            val=args.val,
            clip=given(args, ClipConfig),
            train=given(args, TrainConfig),
            recipe=args.recipe,
            model_args=dict(args.model_args),
            checkpoint=args.checkpoint,
            pretrained=args.pretrained,
            resume=args.resume,
            log=args.log,
            device=args.device,
            reading=given(args, ReadConfig),
        )
    except Interrupted as interrupted:
        if is_first_process():
            print(f"interrupted: {_how_to_resume(args)}", file=sys.stderr)
        return interrupted.exit_code
    return 0


def _how_to_resume(args: argparse.Namespace) -> str:
    if not (Path(args.output) / CONFIG).exists():
        return "training had not started, nothing was saved"
    saved = (Path(args.output) / STATE).exists()
    command = shlex.join(["sifa-zoo", "finetune", args.data, "--output", args.output, "--resume"])
    return f"{'what was trained is saved' if saved else 'nothing was saved yet'}; continue with: {command}"


def _recipes(args: argparse.Namespace) -> int:
    chosen = {args.name: find_recipe(args.name)} if args.name else recipes()
    for name, recipe in chosen.items():
        print(f"{name}: {recipe.text}")
    columns = {name: {**recipe.clip, **vars(recipe.train)} for name, recipe in {**chosen, "default": Recipe()}.items()}
    settings = dict.fromkeys(setting for column in columns.values() for setting in column)
    table = [("", *columns)]
    table += [(name, *(setting_text(column.get(name, "-")) for column in columns.values())) for name in settings]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print("-: as the checkpoint or the model says")
    return 0
