"""Publishes a run as a repository on the Hugging Face Hub, which `create_model("hf-hub:owner/name")` loads."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from sifa_zoo import __version__
from sifa_zoo.datasets.videos import few
from sifa_zoo.evaluation.figures import is_complete
from sifa_zoo.evaluation.results import RESULT
from sifa_zoo.publishing.fixed_clip import first_logits
from sifa_zoo.runtime.checkpoint import load_run, model_cfg
from sifa_zoo.weights.contents import file_info
from sifa_zoo.weights.finding import weights_file
from sifa_zoo.weights.hub import CONFIG, WEIGHTS, file_sha256, split_repo, upload
from sifa_zoo.weights.info import WeightsInfo
from sifa_zoo.weights.manifest import Entry

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

_TIMM_CFG = ("input_size", "interpolation", "crop_pct", "mean", "std", "first_conv", "classifier")
_METRICS = ("top1", "top5", "mean_class_accuracy", "map")


def publish(
    run: str | os.PathLike[str],
    repo: str,
    *,
    licence: str,
    trained_on: str,
    evaluations: Sequence[str | os.PathLike[str]] = (),
    tag: str | None = None,
    private: bool = False,
) -> tuple[str, Entry]:
    """Upload weights, `config.json` and a model card in one commit.

    Args:
        run: A run folder (its best weights), or one of its weights files.
        repo: `owner/name`; created if it does not exist.
        licence: Licence of the weights, as the Hub spells it, such as `apache-2.0`.
        trained_on: The training data, in words.
        evaluations: Folders or files of `sifa-zoo eval --output` for these weights; without any, the validation
            figures from training are published.
        tag: Tag of the manifest entry; None takes the repository's name.
        private: Make a new repository private; ignored if it exists.

    Returns:
        The name and the entry for the manifest.

    Raises:
        ValueError: If the run, the repository's name or an evaluation cannot be used; nothing is uploaded then.
        WeightsError: If the Hub refuses or fails.

    Example:
        >>> publish("runs/mine", "me/mine", licence="apache-2.0", trained_on="my videos")  # doctest: +SKIP
    """
    if split_repo(repo)[1] is not None:
        raise ValueError(f"repo must be owner/name, without a revision, got {repo!r}")
    tag = tag or re.sub(r"\W+", "_", repo.partition("/")[2])
    if not re.fullmatch(r"\w+", tag):
        raise ValueError(f"tag must consist of letters, digits and _, got {tag!r}")
    if not licence.strip() or not trained_on.strip():
        raise ValueError("licence and trained_on must not be empty: they go on the model card")
    path = weights_file(Path(run))
    model = load_run(path)
    info = file_info(path)
    assert info is not None  # load_run refuses weights without it
    sha256 = file_sha256(path)
    figures = [f for file in evaluations for f in _evaluation_figures(Path(file), info, sha256)] or validation_figures(
        info, trained_on
    )
    entry = describe_weights(path, model, info, licence=licence, trained_on=trained_on, figures=figures)
    entry = dataclasses.replace(entry, status="published", repo=repo, file=WEIGHTS)
    config = json.dumps(hub_config(model, info, entry, tag=tag), indent=2) + "\n"
    card = model_card(f"{info.arch}.{tag}", entry, repo=repo, info=info)
    files: dict[str, bytes | Path] = {WEIGHTS: path, CONFIG: config.encode(), "README.md": card.encode()}
    commit = upload(repo, files, message=f"{info.arch}, sifa_zoo {__version__}", private=private)
    return f"{info.arch}.{tag}", dataclasses.replace(entry, revision=commit)


def describe_weights(
    path: Path, model: nn.Module, info: WeightsInfo, *, licence: str, trained_on: str, figures: list[dict[str, Any]]
) -> Entry:
    """The manifest entry of a weights file, without where to download it."""
    return Entry(
        status="embedded",
        trained_on=trained_on,
        file=path.name,
        sha256=file_sha256(path),
        bytes=path.stat().st_size,
        licence=licence,
        num_classes=len(info.class_names),
        class_names=list(info.class_names),
        clip=json.loads(json.dumps(info.clip.to_dict())),
        protocol=figures[0]["protocol"] if figures else info.protocol,
        figures=figures,
        model_args=info.model_args,
        logits=first_logits(model),
    )


def hub_config(model: nn.Module, info: WeightsInfo, entry: Entry, *, tag: str) -> dict[str, Any]:
    """`config.json`: timm's keys, and under `sifa_zoo` the manifest entry."""
    cfg = model_cfg(model)
    timm_cfg = {key: cfg[key] for key in _TIMM_CFG}
    return {
        "architecture": info.arch,
        "num_classes": len(info.class_names),
        "num_features": model.num_features,
        "label_names": list(info.class_names),
        "model_args": info.model_args,
        "pretrained_cfg": {**timm_cfg, "tag": tag, "num_classes": len(info.class_names), "license": entry.licence},
        "sifa_zoo": {"version": __version__, **entry.to_dict()},
    }


def model_card(name: str, entry: Entry, *, repo: str, info: WeightsInfo) -> str:
    """The README.md of the repository: figures with their protocol, how to use the model, what it was trained on."""
    from huggingface_hub import ModelCardData

    header = ModelCardData(
        license=entry.licence,
        library_name="sifa_zoo",
        pipeline_tag="video-classification",
        tags=["video-classification", "timm", "sifa"],
        model_name=name,
        eval_results=[_eval_result(figure) for figure in entry.figures],
    )
    rows = [
        f"| {f['data']} | {f['metric']} | {f['value']:.2f} % | {f['protocol']} | {f['videos']} | {f['source']} |"
        for f in entry.figures
    ]
    return f"""---
{header.to_yaml()}
---

# {name}

{info.arch} of [SIFA](https://arxiv.org/abs/2206.06931), trained on {entry.trained_on}. Licence: {entry.licence}.

```python
import sifa_zoo

model = sifa_zoo.create_model("hf-hub:{repo}", pretrained=True).eval()
print(sifa_zoo.predict(model, "video.mp4"))
```

| data | metric | value | protocol | videos | source |
| --- | --- | --- | --- | --- | --- |
{chr(10).join(rows)}

- Clips: {info.clip.protocol} pixels, {info.clip.sampling} sampling, mean {info.clip.mean}, deviation {info.clip.std}
- Model arguments: `{json.dumps(info.model_args)}`
- {len(info.class_names)} classes: {few(info.class_names)}
- `{WEIGHTS}`: {entry.bytes} bytes, sha256 `{entry.sha256}`
"""


def validation_figures(info: WeightsInfo, data: str) -> list[dict[str, Any]]:
    """The figures of the validation in training; none for converted weights, which were not trained here."""
    if not info.metrics:
        return []
    videos, expected = info.metrics["val_videos"], info.metrics["val_expected"]
    if videos != expected:
        raise ValueError(
            f"only {videos} of {expected} validation videos could be evaluated in training: give a complete evaluation"
        )
    source = "validation videos, by which the best epoch was chosen"
    shared = {"data": data, "status": "measured", "source": source, "protocol": info.protocol, "videos": videos}
    known = [(metric, info.metrics.get(f"val_{metric}")) for metric in _METRICS]
    return [{"metric": metric, "value": value, **shared} for metric, value in known if value is not None]


def _evaluation_figures(file: Path, info: WeightsInfo, sha256: str) -> list[dict[str, Any]]:
    """The figures in a folder or file of `sifa-zoo eval --output`, which must be for the same weights."""
    file = file / RESULT if file.is_dir() else file
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
        complete = is_complete(result)
        shared = {"data": result["data"], "status": "measured", "source": f"sifa-zoo {__version__} eval"}
        shared |= {"protocol": result["protocol"], "videos": result["videos"]}
        metrics = [metric for metric in _METRICS if metric in ("top1", "top5") or result.get(metric) is not None]
        figures = [{"metric": metric, "value": float(result[metric]), **shared} for metric in metrics]
        arch, class_names, evaluated = result["arch"], list(result["class_names"]), result["weights_sha256"]
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not a result of `sifa-zoo eval --output` ({error!r})") from error
    if not complete:
        raise ValueError(f"{file}: only {result['videos']} of {result['expected']} videos were evaluated")
    if (arch, class_names) != (info.arch, list(info.class_names)):
        raise ValueError(
            f"{file} is a result of {arch} with the classes {few(class_names)}, "
            f"but the run is of {info.arch} with {few(info.class_names)}; evaluate the run itself"
        )
    if evaluated != sha256:
        way_out = "run `sifa-zoo eval` on the weights to be published"
        raise ValueError(f"{file} is a result of other weights (sha256 {evaluated}, not {sha256}): {way_out}")
    return figures


def _eval_result(figure: Mapping[str, Any]) -> EvalResult:
    """A figure in the form that the Hub shows beside a model."""
    from huggingface_hub import EvalResult

    return EvalResult(
        task_type="video-classification",
        dataset_type=re.sub(r"\W+", "-", figure["data"]).strip("-").lower(),
        dataset_name=figure["data"],
        metric_type="map" if figure["metric"] == "map" else "accuracy",
        metric_name=figure["metric"],
        metric_value=round(figure["value"], 2),
    )
