"""The commands that say how good weights are: `eval` and `compare`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from sifa_zoo.cli.flags import WEIGHTS_HELP, Commands, add_device, add_settings, check_writable, given
from sifa_zoo.config import EvalConfig, ReadConfig
from sifa_zoo.files import check_folder


def add_commands(commands: Commands) -> None:
    """Add this module's commands to the parser of `sifa-zoo`."""
    _add_eval(commands.add_parser("eval", help="evaluate weights on labelled videos"))
    _add_compare(commands.add_parser("compare", help="show two evaluations side by side"))


def _add_eval(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_eval)
    parser.add_argument("weights", metavar="WEIGHTS", help=WEIGHTS_HELP)
    parser.add_argument("data", metavar="DATA", help="as for finetune; or a single list or class folder")
    parser.add_argument("--split", default="val", choices=("train", "val", "test"), help="split of DATA (default: val)")
    add_device(parser)
    output_help = (
        "folder for the result, tables of videos and classes, pictures and report.html; or a .json file for the result"
    )
    parser.add_argument("--output", metavar="FOLDER", help=output_help)
    add_settings(parser, EvalConfig, "scoring (default views and precision: those of the weights)")
    add_settings(parser, ReadConfig, "data")


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_compare)
    parser.add_argument("first", metavar="RESULT_A", help="folder from `sifa-zoo eval --output`")
    parser.add_argument("second", metavar="RESULT_B", help="likewise")
    common_help = "compare only the videos that both have, if they differ"
    parser.add_argument("--common", action="store_true", help=common_help)
    parser.add_argument("--output", metavar="FILE.html", help="also write the comparison as a page")


def _eval(args: argparse.Namespace) -> int:
    from sifa_zoo.evaluation.charts import need_matplotlib
    from sifa_zoo.evaluation.evaluate import evaluate_run
    from sifa_zoo.evaluation.figures import is_complete
    from sifa_zoo.evaluation.results import REPORT, result_json
    from sifa_zoo.files import write_files
    from sifa_zoo.runtime.processes import is_first_process

    as_file = bool(args.output) and Path(args.output).suffix.lower() == ".json"
    if as_file:
        check_writable(args.output)
    elif args.output:
        check_folder(args.output)
        need_matplotlib()
    options = {"split": args.split, "device": args.device, "output": None if as_file else args.output}
    result = evaluate_run(
        args.weights, args.data, reading=given(args, ReadConfig), **options, **given(args, EvalConfig)
    )
    complete = is_complete(result)
    if not is_first_process():
        return 0 if complete else 1
    for line in result["failed"]:
        print(f"error: {line}", file=sys.stderr)
    _print_result(args, result)
    if as_file:
        write_files({Path(args.output): result_json(result)})
    elif args.output:
        print(f"report: {Path(args.output) / REPORT}")
    return 0 if complete else 1


def _print_result(args: argparse.Namespace, result: dict[str, Any]) -> None:
    from sifa_zoo.evaluation.figures import figure_texts, is_complete

    shortfall = "" if is_complete(result) else " - INCOMPLETE"
    print(f"{args.weights} on {args.data}: {result['protocol']}")
    print(f"{result['videos']} of {result['expected']} videos evaluated{shortfall}")
    print(", ".join(f"{name} {text}" for name, text in figure_texts(result).items()))


def _compare(args: argparse.Namespace) -> int:
    from sifa_zoo.evaluation.compare import compare, comparison_html, comparison_text
    from sifa_zoo.files import write_files

    check_writable(args.output, suffixes=(".html", ".htm"))
    comparison = compare(args.first, args.second, common=args.common)
    print(comparison_text(comparison))
    if args.output:
        write_files({Path(args.output): comparison_html(comparison).encode()})
        print(f"page: {args.output}")
    return 0
