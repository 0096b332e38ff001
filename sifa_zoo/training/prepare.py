"""Prepares a run: settings, videos and model, each checked before anything slow begins."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.optim import list_optimizers
from torch import nn

from sifa_zoo.config import ClipConfig, ReadConfig, TrainConfig
from sifa_zoo.datasets.formats import BY_INDEX
from sifa_zoo.datasets.formats.video_files import real_paths
from sifa_zoo.datasets.reading import read_videos_or_shards
from sifa_zoo.datasets.shard_list import ShardList
from sifa_zoo.datasets.videos import DataError, VideoList, check_trainable
from sifa_zoo.files import CONFIG, LAST, STATE, check_folder, is_temporary
from sifa_zoo.preparing.check import find_undecodable
from sifa_zoo.registry import create_model, is_model
from sifa_zoo.runtime.checkpoint import clip_config, read_info
from sifa_zoo.runtime.processes import gather_rows, on_writer, rank, say, world_size
from sifa_zoo.training.optim import global_batch
from sifa_zoo.training.recipes import Recipe, find_recipe
from sifa_zoo.training.run_config import RunConfig
from sifa_zoo.weights.finding import SCHEMES, find_entry, locate_weights
from sifa_zoo.weights.info import WeightsInfo

_DECIDED_ELSEWHERE = {"num_classes", "num_frames", "img_size", "drop_rate", "pretrained", "checkpoint_path"}
_CHANGEABLE = ("workers", "save_every", "save_minutes")  # settings that do not affect the result of a run


def open_run(run: Path, *, resume: bool) -> RunConfig | None:
    """The saved settings of a run to resume; None for a new run.

    Raises:
        ValueError: If there is nothing to resume, or a new run would overwrite another.
    """
    check_folder(run)
    if resume:
        if not (run / CONFIG).is_file():
            raise ValueError(f"there is no run to resume in {run} (no {CONFIG}); leave out --resume to start one")
        if (run / LAST).exists() and not (run / STATE).exists():
            raise ValueError(f"{run / STATE} is missing; start a new --output with --checkpoint {run / LAST}")
        try:
            return RunConfig.from_dict(json.loads((run / CONFIG).read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{run / CONFIG} is damaged or of another version ({error}); start a new --output"
            ) from error
    if run.is_dir() and any(not is_temporary(path) for path in run.iterdir()):
        if (run / CONFIG).exists():
            raise ValueError(f"{run} holds another run: choose a new --output, or continue that run with --resume")
        raise ValueError(f"{run} is not empty: choose a new --output")
    return None


def settle(given: dict[str, Any], *, saved: RunConfig | None) -> RunConfig:
    """The settings of a run: those given (not None), completed by the saved ones or by recipe, checkpoint and model.

    Raises:
        ValueError: If a setting is missing or contradicts another, or a resumed run's differs from the saved one.
    """
    _refuse_name_of_weights(given["checkpoint"])
    for name in ("data", "val", "checkpoint"):
        if given[name] is not None:
            given[name] = _absolute(os.fspath(given[name]))
    reading = _override(given["reading"], saved.reading if saved else ReadConfig())
    if reading.remap not in (None, BY_INDEX):
        reading = dataclasses.replace(reading, remap=os.path.abspath(reading.remap))
    given["reading"] = reading
    if given["model_args"]:
        given["model_args"] = _as_saved(given["model_args"])
    if saved:
        return _settle_resumed(given, saved)
    info = read_info(given["checkpoint"]) if given["checkpoint"] else None
    model = _need_model(given["model"] or (info.arch if info else None))
    pretrained = given["pretrained"] or "." in model
    if pretrained and given["checkpoint"]:
        raise ValueError(
            f"training starts from the weights of {model} or from a checkpoint, got both; leave out one of them"
        )
    if info and info.arch != model:
        raise ValueError(f"{given['checkpoint']} holds weights of {info.arch}, not of {model}; leave out the model")
    recipe = find_recipe(given["recipe"]) if given["recipe"] else Recipe()
    train = _override(given["train"], recipe.train)
    if train.opt not in (optimizers := list_optimizers()):
        nearest = difflib.get_close_matches(train.opt, optimizers, n=3, cutoff=0.3) or ["adamw", "sgd"]
        raise ValueError(f"opt must be one of timm's optimisers, got {train.opt!r}; did you mean {', '.join(nearest)}?")
    if train.warmup_epochs > train.epochs:
        print(
            f"warning: the warm-up of {train.warmup_epochs:g} epochs is longer than the run of {train.epochs}, which "
            "never reaches its learning rate; set --warmup-epochs",
            file=sys.stderr,
        )
    usual = _override(recipe.clip, info.clip if info else usual_clip(model, pretrained))
    clip = _override(given["clip"], usual)
    model_args = given["model_args"] or (info.model_args if info else {})
    chosen = {"model": model, "pretrained": pretrained, "clip": clip, "train": train, "model_args": model_args}
    return RunConfig(**{name: value for name, value in {**given, **chosen}.items() if value is not None})


def usual_clip(model: str, pretrained: bool = False) -> ClipConfig:
    """The clip settings that a model, or its weights, would usually have."""
    if pretrained:
        return find_entry(model)[1].clip_config
    with torch.device("meta"):
        return clip_config(create_model(model))


def read_data(config: RunConfig, *, run: Path) -> tuple[VideoList | ShardList, VideoList | ShardList]:
    """Training and validation videos; classes keep the order of the run or checkpoint if it has the same ones.

    A remap must lead to the classes of the run or checkpoint, if there is one.
    """
    how, info = config.reading, _start_info(config, run)
    train_videos = read_videos_or_shards(config.data, "train", info.class_names if info and how.remap else None, how)
    if info and set(info.class_names) == set(train_videos.class_names):
        train_videos = train_videos.with_classes(info.class_names)
    elif (run / LAST).exists():
        raise DataError(f"the classes of {config.data} are no longer those of the run in {run}; start a new --output")
    _check_training(config, train_videos)
    how_val = dataclasses.replace(how, format=None) if config.val else how
    val_videos = read_videos_or_shards(config.val or config.data, "val", train_videos.class_names, how_val)
    if val_videos.multi_label and not train_videos.multi_label:
        raise DataError("validation videos have several labels each, but training videos have one")
    if train_videos.multi_label:
        if isinstance(val_videos, ShardList):
            raise DataError("training videos may have several labels each, but videos in shards have one")
        val_videos = val_videos.as_multi_label()
    _compare_splits(config, train_videos, val_videos)
    return train_videos, val_videos


def build_model(config: RunConfig, class_names: tuple[str, ...], *, run: Path) -> nn.Module:
    """The model with the weights that training starts from; a resumed run loads its own over them."""
    fresh = not (run / STATE).exists()
    model = create_model(
        config.model if fresh else config.architecture,
        pretrained=config.pretrained and fresh,
        num_classes=len(class_names),
        num_frames=config.clip.num_frames,
        img_size=config.clip.img_size,
        checkpoint_path=locate_weights(config.checkpoint).path if config.checkpoint and fresh else None,
        **{"drop_rate": config.train.drop_rate, **config.model_args},
    )
    info = _start_info(config, run)
    if info and info.class_names != class_names and len(info.class_names) == len(class_names):
        model.reset_classifier(len(class_names))  # type: ignore[operator]  # `create_model` renews only one of another size
        say(f"{config.checkpoint}: the head is re-initialised for classes of other names, all else is loaded")
    return model


def check_files(*data: VideoList | ShardList, workers: int, skip_bad: bool = False) -> dict[str, str]:
    """Open every video that was never opened before, each process its share, and name the bad ones on stderr.

    Videos in shards are not opened: each epoch reads them anyway.

    Returns:
        A line, `path: reason`, for each bad video, by path.

    Raises:
        DataError: If there are bad videos, unless they are skipped.
    """
    lists = [videos for videos in data if isinstance(videos, VideoList)]
    if len(lists) < len(data):
        say("  videos in shards are checked as they are read")
    mine = [videos.subset(np.arange(rank(), len(videos), world_size())) for videos in lists]
    bad = dict(gather_rows([row for videos in mine for row in find_undecodable(videos, workers=workers).items()]))
    on_writer(_name_bad_files, list(bad.values()), total=sum(map(len, lists)), skip_bad=skip_bad)
    return bad


def leave_out(
    bad: Mapping[str, str], *data: VideoList | ShardList
) -> tuple[VideoList | ShardList, VideoList | ShardList]:
    """Training and validation data without the bad videos, which count as missing.

    Raises:
        DataError: If nothing is left for training or validation.
    """
    train, val = (videos.without(bad.keys()) if isinstance(videos, VideoList) else videos for videos in data)
    for left, kind in ((train, "training"), (val, "validation")):
        if bad and not len(left):
            raise DataError(f"not one {kind} video can be used; they are listed above")
    return train, val


def _absolute(name: str) -> str:
    """A path made absolute; names that are not paths stay as they are."""
    is_path = not name.startswith((*SCHEMES, "pipe:", "{")) and "://" not in name
    return os.path.abspath(name) if is_path else name


def _override(given: Any, base: Any) -> Any:
    """`given` if it is a whole dataclass, or else `base` with the fields that `given` names."""
    return given if dataclasses.is_dataclass(given) else dataclasses.replace(base, **(given or {}))


def _as_saved(model_args: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the model's constructor as JSON keeps them, so that a resumed run can compare them."""
    if decided := _DECIDED_ELSEWHERE & model_args.keys():
        raise ValueError(
            f"model_args must not name {', '.join(sorted(decided))}: the data or other settings decide that"
        )
    try:
        saved: dict[str, Any] = json.loads(json.dumps(model_args))
    except (TypeError, ValueError) as error:
        raise ValueError(f"model_args must be values that JSON can hold, got {model_args} ({error})") from error
    return saved


def _settle_resumed(given: dict[str, Any], saved: RunConfig) -> RunConfig:
    given = {name: value for name, value in given.items() if value}
    nested = {"clip": _override(given.get("clip"), saved.clip), "train": _override(given.get("train"), saved.train)}
    config = RunConfig(**{**vars(saved), **given, **nested})
    old, new = saved.flat(), config.flat()
    names = [name for name in old if old[name] != new[name] and name not in _CHANGEABLE]
    if names:
        changed = ", ".join(f"{name} is {old[name]}, not {new[name]}" for name in names)
        raise ValueError(f"a resumed run keeps its settings: {changed}; start a new --output to change them")
    return config


def _refuse_name_of_weights(checkpoint: str | os.PathLike[str] | None) -> None:
    name = os.fspath(checkpoint or "")
    if is_model(name.partition(".")[0]) and not os.path.exists(name):
        raise ValueError(f"the checkpoint must be a run or a file, got {name!r}: give weights by name as the model")


def _need_model(model: str | None) -> str:
    if not model:
        raise ValueError("the model is missing: name one of `sifa-zoo list`, or give the checkpoint of a run")
    if model.startswith(SCHEMES):
        raise ValueError(f"the model must be an architecture, got {model!r}: give weights like these as the checkpoint")
    return model


def _start_info(config: RunConfig, run: Path) -> WeightsInfo | None:
    """The description stored with the weights that training starts from."""
    if (run / LAST).exists():
        return read_info(run / LAST)
    return read_info(config.checkpoint) if config.checkpoint else None


def _check_training(config: RunConfig, videos: VideoList | ShardList) -> None:
    """Refuse what cannot be trained on; for shards, only classes and the number of samples are known."""
    if isinstance(videos, VideoList):
        check_trainable(videos)
        _warn_of_small_epochs(config.train, num_clips=len(videos) * config.train.repeats)
        if idle := [name for name, count in zip(videos.class_names, videos.counts, strict=True) if not count]:
            print(f"warning: classes without a training video: {', '.join(idle[:20])}", file=sys.stderr)
        return
    if len(videos.class_names) < 2:
        raise DataError(f"training needs at least two classes, got {', '.join(videos.class_names)}")
    if config.train.balance or config.train.repeats > 1:
        raise ValueError(
            f"balance and repeats need a list of all videos, which shards do not have; leave them out, got "
            f"balance = {config.train.balance}, repeats = {config.train.repeats}"
        )


def _warn_of_small_epochs(train: TrainConfig, *, num_clips: int) -> None:
    """Warn if updates have fewer clips than the global batch, for which rates may have been scaled."""
    batch = global_batch(train, num_replicas=world_size())
    if batch > num_clips:
        rates = f"; the rates are scaled to {batch}, take a smaller batch" if train.lr_batch else ""
        print(f"warning: an epoch has {num_clips} clips, fewer than the {batch} of an update{rates}", file=sys.stderr)


def _compare_splits(config: RunConfig, *splits: VideoList | ShardList) -> None:
    """Refuse validation on training videos alone, and warn of some among them; shards are compared as files."""
    kind = "shards" if isinstance(splits[1], ShardList) else "videos"
    train, val = map(_files, splits)
    shared = train & val
    if len(shared) == len(val):
        raise DataError(f"{config.data} has no validation {kind} besides the training {kind}; name some with --val")
    if shared:
        print(f"warning: {len(shared)} validation {kind} are in training too, such as {min(shared)}", file=sys.stderr)
    for videos in splits:
        len(videos)  # counts the samples of shards now, once for all processes


def _files(videos: VideoList | ShardList) -> set[str]:
    return set(videos.shards if isinstance(videos, ShardList) else real_paths(videos.paths.tolist()))


def _name_bad_files(bad: list[str], *, total: int, skip_bad: bool) -> None:
    for line in bad:
        print(line, file=sys.stderr)
    counts = f"{len(bad)} of {total} videos cannot be used (listed above)"
    if bad and not skip_bad:
        raise DataError(f"{counts}; repair or remove them, or leave them out with --skip-bad")
    if bad:
        print(f"warning: {counts} and will be skipped", file=sys.stderr)
