"""A run becomes a repository, and the repository becomes the same model in another process."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from huggingface_hub import ModelCard

import sifa_zoo
from sifa_zoo.cli import main
from sifa_zoo.evaluation.evaluate import evaluate_run
from sifa_zoo.publishing.fixed_clip import fixed_clip
from sifa_zoo.publishing.publish import publish, validation_figures
from sifa_zoo.publishing.verify import verify
from sifa_zoo.runtime.checkpoint import load_run, read_info
from sifa_zoo.weights.hub import CorruptError, HubError, RepositoryError
from sifa_zoo.weights.manifest import parse_manifest

ROOT = Path(__file__).parents[2]
REPO = "tester/two-colours"
SCHEMA = json.loads((ROOT / "docs" / "weights_manifest.schema.json").read_text())
FACTS = {"licence": "cc-by-4.0", "trained_on": "two colours"}


@pytest.fixture
def logged_in(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    return hub


@pytest.fixture
def evaluation(run_folder, data, tmp_path):
    path = tmp_path / "eval.json"
    path.write_text(json.dumps(evaluate_run(run_folder, data, workers=0, device="cpu")))
    return path


LOGITS = """
import sifa_zoo
from sifa_zoo.publishing.fixed_clip import fixed_clip
model = sifa_zoo.create_model("hf-hub:{repo}", pretrained=True).eval()
print(model(fixed_clip(model))[0].tolist(), model.pretrained_cfg["label_names"])
"""


def test_published_weights_are_bit_identical_in_a_new_process(logged_in, run_folder, tmp_path):
    publish(run_folder, REPO, **FACTS)
    model = load_run(run_folder)
    expected = f"{model(fixed_clip(model))[0].tolist()} {model.pretrained_cfg['label_names']}"
    env = {**os.environ, "HF_ENDPOINT": logged_in.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    env.pop("HF_HUB_CACHE", None)
    command = [sys.executable, "-c", LOGITS.format(repo=REPO)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.stdout.strip() == expected, done.stderr


def test_what_is_published(logged_in, run_folder, evaluation):
    name, entry = publish(run_folder, REPO, evaluations=[evaluation], **FACTS)
    info = read_info(run_folder)
    assert name == f"{info.arch}.two_colours"
    jsonschema.validate({"version": 1, "weights": {name: entry.to_dict()}}, SCHEMA)
    assert entry.revision == logged_in.repos[REPO].branches["main"]
    files = {path: blob.data for path, blob in logged_in.repos[REPO].commits[entry.revision].items()}
    assert files["model.safetensors"] == (run_folder / "best.safetensors").read_bytes()
    config = json.loads(files["config.json"])
    assert config["label_names"] == list(info.class_names)
    assert config["sifa_zoo"]["sha256"] == entry.sha256
    result = json.loads(evaluation.read_text())
    metrics = ["top1", "top5", "mean_class_accuracy"]
    assert [(f["metric"], f["value"]) for f in entry.figures] == [(metric, result[metric]) for metric in metrics]
    assert {(f["protocol"], f["videos"], f["status"]) for f in entry.figures} == {
        (result["protocol"], result["videos"], "measured")
    }
    card = ModelCard(files["README.md"].decode())
    assert card.data.license == "cc-by-4.0"
    assert card.data.eval_results[0].metric_value == round(result["top1"], 2)
    for text in (f"hf-hub:{REPO}", result["protocol"], entry.sha256, "two colours", "cc-by-4.0", *info.class_names):
        assert text in card.text


def test_without_an_evaluation_the_figures_are_those_of_the_validation(logged_in, run_folder):
    _, entry = publish(run_folder, REPO, tag="mine", **FACTS)
    assert entry.figures[0]["value"] == read_info(run_folder).metrics["val_top1"]
    assert "best epoch was chosen" in entry.figures[0]["source"]
    assert entry.figures[0]["videos"] == 4


def test_the_figures_of_an_incomplete_validation_do_not_count(run_folder):
    info = read_info(run_folder)
    incomplete = dataclasses.replace(info, metrics={**info.metrics, "val_videos": 3})
    with pytest.raises(ValueError, match="only 3 of 4 validation videos could be evaluated in training"):
        validation_figures(incomplete, "two colours")


def test_weights_that_were_not_trained_here_have_no_figures_of_a_validation(run_folder):
    converted = dataclasses.replace(read_info(run_folder), metrics={})
    assert validation_figures(converted, "two colours") == []


def test_publishing_again_makes_a_new_commit(logged_in, run_folder):
    first = publish(run_folder, REPO, **FACTS)[1].revision
    second = publish(run_folder, REPO, **{**FACTS, "trained_on": "other colours"})[1].revision
    assert first != second
    assert sifa_zoo.create_model(f"hf-hub:{REPO}@{first}").num_classes == 2


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"repo": "noslash"}, "expected hf-hub:owner/name"),
        ({"repo": "a/b@main"}, "without a revision"),
        ({"tag": "a b"}, "tag must consist of"),
        ({"licence": " "}, "must not be empty"),
        ({"run": "nowhere"}, "no such run folder"),
    ],
)
def test_mistakes_are_reported_before_anything_is_sent(logged_in, run_folder, arguments, match):
    arguments = {"run": run_folder, "repo": REPO, **FACTS, **arguments}
    with pytest.raises(ValueError, match=match):
        publish(arguments.pop("run"), arguments.pop("repo"), **arguments)
    assert logged_in.requests == []


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"videos": 1}, "only 1 of"),
        ({"arch": "sifa_net_r50"}, "is a result of sifa_net_r50"),
        ({"class_names": ["red", "blue"]}, "with the classes red, blue"),
        ({"weights_sha256": "0" * 64}, "is a result of other weights"),
        ({"top1": "?"}, "is not a result of"),
    ],
)
def test_evaluations_that_do_not_count(logged_in, run_folder, evaluation, changes, match):
    evaluation.write_text(json.dumps(json.loads(evaluation.read_text()) | changes))
    with pytest.raises(ValueError, match=match):
        publish(run_folder, REPO, evaluations=[evaluation], **FACTS)
    assert logged_in.requests == []


def test_results_without_the_hash_of_the_weights_do_not_count(logged_in, run_folder, evaluation):
    result = json.loads(evaluation.read_text())
    del result["weights_sha256"]
    evaluation.write_text(json.dumps(result))
    with pytest.raises(ValueError, match="weights_sha256"):
        publish(run_folder, REPO, evaluations=[evaluation], **FACTS)


def test_an_evaluation_may_be_a_folder_and_have_a_mean_average_precision(logged_in, run_folder, evaluation, tmp_path):
    (tmp_path / "result.json").write_text(json.dumps(json.loads(evaluation.read_text()) | {"map": 61.5}))
    _, entry = publish(run_folder, REPO, evaluations=[tmp_path], **FACTS)
    assert (entry.figures[-1]["metric"], entry.figures[-1]["value"]) == ("map", 61.5)
    with pytest.raises(ValueError, match=r"nothing.json cannot be read: No such file"):
        publish(run_folder, REPO, evaluations=[tmp_path / "nothing.json"], **FACTS)


def test_nobody_publishes_without_a_token_or_on_a_broken_hub(hub, run_folder, monkeypatch):
    with pytest.raises(RepositoryError, match="set HF_TOKEN"):
        publish(run_folder, REPO, **FACTS)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    hub.fail("/commit/", status=500, methods=("POST",), times=1000)
    with pytest.raises(HubError, match="status 500"):
        publish(run_folder, REPO, **FACTS)


def test_the_command_writes_the_manifest(logged_in, run_folder, evaluation, tmp_path, capsys):
    manifest = tmp_path / "weights_manifest.json"
    manifest.write_text((ROOT / "weights_manifest.json").read_text())
    command = ["publish", str(run_folder), "--repo", REPO, "--licence", "mit", "--trained-on", "two colours"]
    command += ["--eval", str(evaluation), "--tag", "colours"]
    assert main([*command, "--manifest", str(manifest)]) == 0
    jsonschema.validate(json.loads(manifest.read_text()), SCHEMA)
    written = parse_manifest(manifest.read_text())[f"{read_info(run_folder).arch}.colours"]
    assert (written.repo, written.licence) == (REPO, "mit")
    capsys.readouterr()
    assert main(command) == 0
    printed = capsys.readouterr().out
    entry = json.loads(printed[printed.index("{") :])
    assert next(iter(entry.values())) == written.to_dict() | {"revision": logged_in.repos[REPO].branches["main"]}
    manifest.write_text("{}")
    asked = len(logged_in.requests)
    assert main([*command, "--manifest", str(manifest)]) == 2
    assert len(logged_in.requests) == asked


def test_verify(logged_in, run_folder, capsys):
    publish(run_folder, REPO, **FACTS)
    found = verify(f"hf-hub:{REPO}")
    assert found.deviation == 0
    assert found.revision == logged_in.repos[REPO].branches["main"]
    assert verify(f"local-dir:{run_folder}").deviation is None
    assert main(["verify", f"hf-hub:{REPO}", "hf-hub:tester/nothing"]) == 1
    out, err = capsys.readouterr()
    assert f"sha256 {found.sha256}, loads, logits 0 off" in out
    assert "error: tester/nothing" in err
    assert main(["verify", "sifa_net_nano.motion"]) == 0


def test_verify_refuses_other_logits(logged_in, run_folder):
    publish(run_folder, REPO, **FACTS)
    config = json.loads(logged_in.repos[REPO].commits[logged_in.repos[REPO].branches["main"]]["config.json"].data)
    config["sifa_zoo"]["logits"][0] += 1e-3
    logged_in.add(REPO, {"config.json": json.dumps(config).encode()})
    with pytest.raises(CorruptError, match=r"are 0\.001 off the stored ones, more than 0\.0001"):
        verify(f"hf-hub:{REPO}")
