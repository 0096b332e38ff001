"""Other projects' checkpoints as weights files: published pickles and 2D trunks."""

import logging

import pytest
import timm
import torch
from published import published
from safetensors.torch import save_file

import sifa_zoo
from sifa_zoo.cli import main
from sifa_zoo.models.convert import ConversionError, from_reference
from sifa_zoo.publishing.conversion import convert_file, read_checkpoint, recognise
from sifa_zoo.runtime.checkpoint import load_run, read_info

NET = {"num_classes": 3, "dual_head": True, "stem_type": ""}
SWIN = {"num_classes": 3, "img_size": 224, "patch_norm": False}


@pytest.mark.parametrize(
    ("name", "built", "given"),
    [
        ("sifa_net_nano", NET, {"stem_type": ""}),
        ("sifa_net_nano", NET | {"dual_head": False, "kernel_size": 5}, {"stem_type": "", "kernel_size": 5}),
        ("sifa_transformer_nano", SWIN, {"img_size": 224}),
        ("sifa_transformer_nano", SWIN | {"patch_norm": True}, {"img_size": 224}),
    ],
)
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_published_checkpoints(name, built, given, wrapper, tmp_path):
    torch.manual_seed(0)
    model = sifa_zoo.create_model(name, **built)
    checkpoint = published(model)
    expected = from_reference(checkpoint, model)
    stored = {f"module.{key}": tensor for key, tensor in checkpoint.items()}
    torch.save({wrapper: stored, "epoch": 3} if wrapper else stored, tmp_path / "theirs.pth")
    output, kind = convert_file(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", model=name, model_args=given)
    assert kind == "published"
    again = sifa_zoo.create_model(f"local-dir:{_as_folder(output)}")
    assert again.state_dict().keys() == expected.keys()
    assert all(torch.equal(t, expected[key].to(t.dtype)) for key, t in again.state_dict().items())


def _as_folder(file):
    folder = file.parent / "folder"
    folder.mkdir()
    file.rename(folder / "model.safetensors")
    return folder


def test_trunks(tmp_path):
    trunk = timm.create_model("resnet50", num_classes=7)
    save_file(trunk.state_dict(), tmp_path / "trunk.safetensors")
    (tmp_path / "names.txt").write_text("".join(f"class {i}\n" for i in range(7)))
    command = ["convert", str(tmp_path / "trunk.safetensors"), "--model", "sifa_net_r50"]
    command += ["--output", str(tmp_path / "ours.safetensors"), "--class-names", str(tmp_path / "names.txt")]
    assert main(command) == 0
    model = load_run(tmp_path / "ours.safetensors")
    assert model.pretrained_cfg["label_names"][6] == "class 6"
    assert torch.equal(model.layer4[2].conv3.weight, trunk.layer4[2].conv3.weight)
    assert torch.equal(model.head.fc.weight, trunk.fc.weight)
    assert read_info(tmp_path / "ours.safetensors").clip.img_size == 224
    assert main(command) == 2  # never over a file that is there


@pytest.mark.parametrize(("suffix", "save"), [(".pth", torch.save), (".safetensors", save_file)])
def test_the_prefix_of_data_parallel_training_is_dropped(tmp_path, suffix, save):
    path = tmp_path / f"parallel{suffix}"
    save({"module.fc.weight": torch.ones(3, 2), "module.fc.bias": torch.ones(3)}, path)
    assert set(read_checkpoint(path)) == {"fc.weight", "fc.bias"}
    assert recognise(read_checkpoint(path)) == ("2D", {"num_classes": 3})


class Surprise:
    def __reduce__(self):
        return (logging.getLogger, ("executed",))


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    torch.save({"state_dict": {"conv1.weight": torch.ones(1)}, "extra": Surprise()}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match=r"bad.pth: cannot be read without executing what is in it"):
        read_checkpoint(tmp_path / "bad.pth")
    assert "executed" not in logging.root.manager.loggerDict


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "cannot be read"),
        (b"no pickle", "cannot be read"),
        ([1, 2], "expected a state_dict"),
        ({"a": 1}, "expected a"),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path, content, match):
    path = tmp_path / "file.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=match):
        read_checkpoint(path)


def test_mistakes(tmp_path):
    checkpoint = tmp_path / "theirs.pth"
    torch.save(published(sifa_zoo.create_model("sifa_net_nano", **NET)), checkpoint)
    arguments = {"model": "sifa_net_nano", "model_args": {"stem_type": ""}}
    with pytest.raises(ValueError, match="no such file"):
        convert_file(tmp_path / "none.pth", tmp_path / "ours.safetensors", **arguments)
    with pytest.raises(ValueError, match="a new file ending in .safetensors"):
        convert_file(checkpoint, tmp_path / "ours.pth", **arguments)
    with pytest.raises(ValueError, match="class_names must be 3 names"):
        convert_file(checkpoint, tmp_path / "ours.safetensors", class_names=["a"], **arguments)
    with pytest.raises(ConversionError, match="build the model with the checkpoint's kernel_size"):
        convert_file(
            checkpoint,
            tmp_path / "ours.safetensors",
            model="sifa_net_nano",
            model_args={"stem_type": "", "kernel_size": 5},
        )
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.pth"]


def test_what_a_checkpoint_says_about_its_model():
    assert recognise({"conv1.weight": torch.zeros(64, 3, 7, 7)}) == ("2D", {})
    assert recognise(timm.create_model("resnet50", num_classes=9).state_dict()) == ("2D", {"num_classes": 9})
