"""Conversion accounts for every tensor."""

import pytest
import timm
import torch
from published import published
from timm.models.resnet import Bottleneck, ResNet
from timm.models.swin_transformer import SwinTransformer

from sifa_zoo.models import convert
from sifa_zoo.models.convert import ConversionError, from_reference, inflate, state_dict_faults
from sifa_zoo.models.sifa_net import sifa_net_nano
from sifa_zoo.models.sifa_transformer import sifa_transformer_nano

CLASSES = 5


def net(**kwargs):
    return sifa_net_nano(**{"num_classes": CLASSES, "dual_head": True, "stem_type": "", **kwargs})


def transformer(**kwargs):
    return sifa_transformer_nano(**{"num_classes": CLASSES, "img_size": 224, "patch_norm": False, **kwargs})


@pytest.mark.parametrize("build", [net, transformer])
def test_every_published_tensor_arrives(build):
    model = build()
    checkpoint = published(model)
    before = {name: tensor.clone() for name, tensor in checkpoint.items()}
    converted = from_reference({f"module.{name}": tensor for name, tensor in checkpoint.items()}, model)
    model.load_state_dict(converted)
    assert all(torch.equal(checkpoint[name], before[name]) for name in before)
    for name, tensor in converted.items():
        if ".temporal.sifa." in name:
            assert not tensor.any()
        else:
            source = checkpoint[convert.reference_name(name)]
            torch.testing.assert_close(tensor.float().norm(), source.norm())


def test_derived_tensors_may_be_absent():
    checkpoint = {
        k: v for k, v in published(net()).items() if not k.endswith(("num_batches_tracked", "def_cor.weight"))
    }
    net().load_state_dict(from_reference(checkpoint, net()))


@pytest.mark.parametrize(
    ("build", "change", "match"),
    [
        (net, {"layer2.1.def_cor.weight": torch.full((32, 4, 3, 3), 0.5)}, r"layer2.1.def_cor.weight must be .* 1/32"),
        (
            transformer,
            {"layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49)},
            "layers.0.blocks.1.attn_mask is not what this architecture has at",
        ),
        (net, {"extra.weight": torch.zeros(1)}, "1 unexpected: extra.weight"),
        (net, {"layer1.0.conv1.weight": None}, "1 missing: layer1.0.conv1.weight"),
        (
            net,
            {"fc.weight": torch.zeros(7, 512)},
            r"head.fc.weight \(7, 512\) where the model has \(5, 512\).*num_classes",
        ),
        (net, {"layer2.1.conv_offset.weight": torch.zeros(50, 32, 1, 3, 3)}, "misshapen.*kernel_size"),
        (net, {"state_dict": {}}, "pass the inner one"),
    ],
)
def test_checkpoints_that_do_not_fit(build, change, match):
    model = build()
    checkpoint = {name: tensor for name, tensor in {**published(model), **change}.items() if tensor is not None}
    with pytest.raises(ConversionError, match=match):
        from_reference(checkpoint, model)


@pytest.mark.parametrize(
    ("checkpoint_of", "model", "match"),
    [
        (net, lambda: net(dual_head=False), "build the model with dual_head=True"),
        (lambda: net(dual_head=False), net, "build the model with dual_head=False"),
        (net, lambda: net(global_context=False), "build the model with global_context=True"),
        (lambda: net(global_context=False), net, "build the model with global_context=False"),
        (transformer, lambda: transformer(patch_norm=True), "build the model with patch_norm=False"),
        (lambda: transformer(patch_norm=True), transformer, "build the model with patch_norm=True"),
    ],
)
def test_a_wrongly_built_model_is_told_how_to_be_built(checkpoint_of, model, match):
    with pytest.raises(ConversionError, match=match):
        from_reference(published(checkpoint_of()), model())


def test_at_most_20_names_are_listed():
    with pytest.raises(ConversionError, match=r"\.\.\.") as error:
        from_reference({}, net())
    assert str(error.value).count("layer") + str(error.value).count("bn1") < 45


def test_faults_are_listed_by_kind():
    target = {"a": torch.zeros(2), "b": torch.zeros(3)}
    assert state_dict_faults(target, {name: tensor + 1 for name, tensor in target.items()}) == []
    assert state_dict_faults(
        target, {"b": torch.zeros(4), "c": torch.zeros(1)}, leftover=["b"], hints=[("c", "drop c", "unexpected")]
    ) == ["1 missing: a", "2 unexpected: b, c", "1 misshapen: b (4,) where the model has (3,)", "drop c"]


def planar_resnet(num_classes):
    return ResNet(Bottleneck, (2, 2, 2, 2), channels=(16, 32, 64, 128), num_classes=num_classes)


def planar_swin(num_classes):
    return SwinTransformer(embed_dim=24, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8), num_classes=num_classes)


@pytest.mark.parametrize(
    ("planar", "build"),
    [
        (planar_resnet, lambda: net(dual_head=False, global_context=False)),
        (planar_swin, lambda: transformer(patch_norm=True)),
    ],
)
def test_an_inflated_model_sees_one_time_step_as_the_planar_one_does(planar, build):
    torch.manual_seed(0)
    planar, model = planar(3).eval(), build().eval()
    head = model.head.fc.weight.clone()
    model.load_state_dict(inflate(planar.state_dict(), model))
    assert torch.equal(model.head.fc.weight, head)  # another number of classes: left alone
    clip = torch.randn(1, 3, 4, 224, 224)
    with torch.inference_mode():
        maps = model.forward_intermediates(clip, intermediates_only=True)
        expected = planar.forward_intermediates(clip[:, :, 2], intermediates_only=True)
    torch.testing.assert_close([map_[:, :, 0] for map_ in maps], expected, atol=1e-4, rtol=1e-3)


def test_the_second_branch_starts_as_the_first():
    planar, model = planar_resnet(3), net()
    model.load_state_dict(inflate(planar.state_dict(), model))
    assert torch.equal(model.layer4_dual[1].conv2.weight, planar.layer4[1].conv2.weight)


def test_inflating_to_other_sizes_channels_and_the_same_classes():
    planar = planar_swin(CLASSES)
    model = transformer(img_size=96, in_chans=1, patch_norm=True)
    inflated = inflate(planar.state_dict(), model)
    model.load_state_dict(inflated)
    assert torch.equal(model.head.fc.weight, planar.head.fc.weight)
    torch.testing.assert_close(model.patch_embed.proj.weight[:, 2], planar.patch_embed.proj.weight.sum(1))


@pytest.mark.parametrize(
    ("planar", "build", "match"),
    [
        (lambda: timm.create_model("resnet18"), net, "missing: .*layer1.0.conv3"),
        (lambda: planar_swin(3), net, "unexpected: .*patch_embed"),
        (lambda: ResNet(Bottleneck, (2, 2, 3, 2), channels=(16, 32, 64, 128)), net, "unexpected: layer3.2"),
        (lambda: ResNet(Bottleneck, (2, 2, 2, 2), channels=(16, 32, 64, 96)), net, "misshapen: layer4.0.conv1.weight"),
    ],
)
def test_planar_checkpoints_that_do_not_fit(planar, build, match):
    with pytest.raises(ConversionError, match=match):
        inflate(planar().state_dict(), build())
