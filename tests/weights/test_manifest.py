"""The manifest is complete, follows its schema, and what it says of files that ship with the package is true."""

import dataclasses
import json
import re
from pathlib import Path

import jsonschema
import pytest
import timm
from timm.data import ImageNetInfo

import sifa_zoo
from sifa_zoo.publishing.verify import TOLERANCE, verify
from sifa_zoo.weights.finding import EMBEDDED
from sifa_zoo.weights.hub import check_file
from sifa_zoo.weights.manifest import STATUSES, Entry, manifest_path, manifest_with, parse_manifest, read_manifest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "weights_manifest.json").read_text(encoding="utf-8")
SCHEMA = json.loads((ROOT / "docs" / "weights_manifest.schema.json").read_text())
ENTRIES = parse_manifest(TEXT)
OF_STATUS = {status: [name for name, entry in ENTRIES.items() if entry.status == status] for status in STATUSES}


def broken(name, **changes):
    manifest = json.loads(TEXT)
    manifest["weights"][name] |= changes
    return manifest


def test_the_manifest_follows_its_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(json.loads(TEXT), SCHEMA)
    assert set(SCHEMA["$defs"]["entry"]["required"]) == {field.name for field in dataclasses.fields(Entry)}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("sifa_net_nano.motion", {"sha256": None}),
        ("sifa_net_nano.motion", {"sha256": "abc"}),
        ("sifa_net_nano.motion", {"logits": None}),
        ("sifa_net_nano.motion", {"bytes": 4_000_001}),
        ("sifa_net_nano.motion", {"figures": []}),
        ("sifa_net_nano.motion", {"status": "ready"}),
        ("sifa_net_nano.motion", {"url": "https://example.com"}),
        ("sifa_net_r50.in1k", {"repo": None}),
        ("sifa_net_r50.in1k", {"revision": "main"}),
        ("sifa_net_r50.in1k", {"bytes": None}),
        ("sifa_net_r50.in1k", {"format": "sifa_zoo"}),  # which needs logits and a protocol
        ("timm:tf_efficientnet_lite0.in1k", {"sha256": None}),
        ("timm:tf_efficientnet_lite0.in1k", {"format": "timm"}),
        ("sifa_transformer_base.k400", {"sha256": "0" * 64}),
        ("sifa_transformer_base.k400", {"num_classes": None}),
    ],
)
def test_the_schema_refuses(name, changes):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken(name, **changes), SCHEMA)


def test_the_schema_refuses_a_figure_of_the_paper_as_measured():
    manifest = json.loads(TEXT)
    manifest["weights"]["sifa_transformer_base.k400"]["figures"][0]["status"] = "measured"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, SCHEMA)


def test_what_must_be_there():
    resnets = {f"sifa_net_{size}.in1k" for size in ("r50", "r101")}
    swins = {f"sifa_transformer_{s}.{tag}" for s in ("tiny", "small", "base", "large") for tag in ("in1k", "in22k")}
    assert resnets | swins == set(OF_STATUS["published"])
    assert OF_STATUS["packaged"] == [f"timm:tf_efficientnet_lite{size}.in1k" for size in (0, 1, 2)]
    assert set(OF_STATUS["embedded"]) == {"sifa_net_nano.motion", "sifa_transformer_nano.motion"}
    paper = {f"{arch}.{tag}" for arch in ("sifa_net_r50", "sifa_net_r101", "sifa_transformer_base") for tag in PAPER}
    assert paper == set(OF_STATUS["unpublished"])
    assert all(sifa_zoo.is_model(name.partition(".")[0]) for name in ENTRIES)


PAPER = {"k400": 83.1, "ssv1": 57.3, "ssv2": 69.8}


@pytest.mark.parametrize("tag", PAPER)
def test_the_figures_of_the_paper(tag):
    (figure,) = ENTRIES[f"sifa_transformer_base.{tag}"].figures
    assert (figure["value"], figure["status"]) == (PAPER[tag], "reported")
    assert "2206.06931" in figure["source"]
    assert "Papers with Code" in figure["source"]


def test_names_with_weights_are_those_that_load():
    loadable = [name for name, entry in ENTRIES.items() if entry.loads]
    assert sifa_zoo.list_pretrained() == sifa_zoo.list_models(pretrained=True) == loadable
    assert set(timm.list_pretrained("sifa_*")) == set(loadable) - set(OF_STATUS["packaged"])
    assert sifa_zoo.list_models("*nano*", pretrained=True) == [name for name in loadable if "nano" in name]


@pytest.mark.parametrize("name", OF_STATUS["published"])
def test_trunks_are_timms(name):
    entry = ENTRIES[name]
    trunk = entry.repo.removeprefix("timm/")
    cfg = timm.get_pretrained_cfg(trunk)
    assert entry.repo.startswith("timm/")
    assert (entry.num_classes, entry.licence) == (cfg.num_classes, cfg.license)
    assert (tuple(entry.clip["mean"]), tuple(entry.clip["std"])) == (cfg.mean, cfg.std)
    assert re.search(r"in22k$|in1k$", trunk)[0] == name.rpartition(".")[2]


@pytest.mark.parametrize("dataset", ["imagenet-1k", "imagenet-22k"])
def test_class_names_of_trunks_are_where_the_manifest_says(dataset):
    import hashlib

    digest = hashlib.sha256("\n".join(ImageNetInfo(dataset).label_names()).encode()).hexdigest()
    stated = {entry.class_names["sha256"] for entry in ENTRIES.values() if dataset in str(entry.class_names)}
    assert stated == {digest}


@pytest.mark.parametrize("name", OF_STATUS["embedded"])
def test_embedded_weights(name):
    entry = ENTRIES[name]
    check_file(EMBEDDED / entry.file, sha256=entry.sha256, size=entry.bytes)
    assert entry.bytes < 4_000_000
    assert verify(name).deviation <= TOLERANCE
    model = sifa_zoo.create_model(name)
    assert list(model.pretrained_cfg["label_names"]) == entry.class_names
    assert entry.protocol == entry.figures[0]["protocol"]
    assert all(figure["status"] == "measured" for figure in entry.figures)


def test_a_manifest_that_is_none():
    with pytest.raises(ValueError, match="not a weights manifest"):
        parse_manifest("{}")
    with pytest.raises(ValueError, match="not a weights manifest"):
        parse_manifest(json.dumps({"weights": {"a.b": {"status": "published", "surprise": 1}}}))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"status": "publishd"},
            r"status must be one of \('published', 'embedded', 'packaged', 'unpublished'\), got 'publishd'",
        ),
        ({"format": "torchvision"}, r"format must be one of \('sifa_zoo', 'timm', .*\), got 'torchvision'"),
    ],
)
def test_entries_of_no_known_kind(changes, match):
    with pytest.raises(ValueError, match=match):
        parse_manifest(json.dumps(broken("sifa_net_r50.in1k", **changes)))


def test_entries_are_replaced_and_added():
    entry = dataclasses.replace(ENTRIES["sifa_net_nano.motion"], note="new")
    again = parse_manifest(
        manifest_with(manifest_with(TEXT, "sifa_net_nano.motion", entry), "sifa_net_nano.other", entry)
    )
    assert again["sifa_net_nano.motion"].note == again["sifa_net_nano.other"].note == "new"
    assert list(again)[-1] == "sifa_net_nano.other"
    assert {n: e for n, e in again.items() if e.note != "new"} == {
        n: e for n, e in ENTRIES.items() if n != "sifa_net_nano.motion" and e.note != "new"
    }


def test_a_clone_reads_the_file_at_its_top():
    assert manifest_path() == ROOT / "weights_manifest.json"
    assert read_manifest() == ENTRIES
