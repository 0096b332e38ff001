"""Blocks and stages are modules like any other: whatever is hung on them, put around or in place of them takes part."""

from collections import Counter

import pytest
import torch
from nano_models import ALL, NANO, SMALL, build, clip, with_moving_taps
from timm.models.resnet import BasicBlock
from timm.models.vision_transformer import Block
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing
from torch.testing import assert_close

from sifa_zoo.models.sifa_net import ClipBottleneck
from sifa_zoo.models.sifa_transformer import ClipSwinBlock, ClipSwinStage
from sifa_zoo.models.staged_model import Blocks

BLOCKS = (ClipBottleneck, ClipSwinBlock, BasicBlock, Block)


def blocks_of(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, BLOCKS)}


def built(name):
    return with_moving_taps(build(name, num_frames=8)).eval()  # eval: batch statistics are still


def last_stage(model):
    if hasattr(model, "trunk"):
        return getattr(model.trunk, "layer4", None) or model.trunk.blocks
    return model.layer4 if hasattr(model, "layer4") else model.layers[-1].blocks


def train_step(model):
    model.zero_grad()
    loss = model(clip(2)).square().sum()
    loss.backward()
    return loss.detach(), [parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_a_hook_on_every_block_and_stage_fires_once(name, checkpointing):
    model = build(name).eval()
    model.set_grad_checkpointing(checkpointing)
    fired, shapes = Counter(), {}

    def hook(module, args, output, name):
        fired[name] += 1
        shapes[name] = output.shape

    hooked = {n: m for n, m in model.named_modules() if isinstance(m, (*BLOCKS, Blocks, ClipSwinStage))}
    for module_name, module in hooked.items():
        module.register_forward_hook(lambda *call, name=module_name: hook(*call, name))
    model(clip(2, num_frames=12))
    assert fired == Counter(hooked.keys())
    assert len(hooked) > 11
    assert {(shape[0], shape[2]) for shape in shapes.values()} == {(2, 3)}  # clips of three time steps


@pytest.mark.parametrize("name", SMALL)
def test_checkpointing_by_pytorch_recomputes(name):
    model = built(name)
    expected = train_step(model)
    calls = Counter()
    apply_activation_checkpointing(model, check_fn=lambda module: isinstance(module, BLOCKS))
    for block_name, block in blocks_of(model).items():
        block.register_forward_pre_hook(lambda *_, name=block_name: calls.update([name]))
    assert_close(train_step(model), expected)
    assert set(calls.values()) == {2}
    assert len(calls) == len(blocks_of(model)) >= 8


@pytest.fixture
def one_process(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("name", SMALL)
def test_sharded_blocks_train_as_whole_ones(name, one_process):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = built(name)
    loss, gradients = train_step(model)
    mesh = init_device_mesh("cpu", (1,))
    for block in blocks_of(model).values():
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    before = [parameter.detach().full_tensor().clone() for parameter in model.parameters()]
    model.zero_grad()
    sharded_loss = model(clip(2)).square().sum()
    sharded_loss.backward()
    optimizer.step()
    assert_close(sharded_loss.detach(), loss)
    for parameter, old, gradient in zip(model.parameters(), before, gradients, strict=True):
        assert_close(parameter.detach().full_tensor(), old - 0.01 * gradient)


@pytest.mark.parametrize("name", SMALL)
def test_a_block_compiled_by_itself(name):
    model = built(name)
    expected = model(clip())
    seen = []

    def backend(graph, inputs):
        seen.append(graph)
        return graph.forward

    last_stage(model)[-1].compile(backend=backend, fullgraph=True)
    assert_close(model(clip()), expected)
    assert seen


@pytest.mark.parametrize("name", NANO)
def test_a_block_can_be_replaced(name):
    model = build(name).eval()
    stage = last_stage(model)
    seen = []
    stage[-1].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(clip())
    stage[-1] = nn.Identity()
    assert_close(model(clip()), model.forward_head(model.finish(seen[0])))


@pytest.mark.parametrize("name", NANO)
def test_grad_cam_by_captum(name):
    attr = pytest.importorskip("captum.attr")
    model = build(name).eval()
    block = last_stage(model)[-1]
    x = clip(2)
    evidence = attr.LayerGradCam(model, block).attribute(x, target=3)
    kept = []
    block.register_forward_hook(lambda module, args, output: kept.append(output))
    logits = model(x)
    (slopes,) = torch.autograd.grad(logits[:, 3].sum(), kept)
    by_hand = (slopes.mean((2, 3, 4), keepdim=True) * kept[0]).sum(1, keepdim=True)
    assert evidence.shape == (2, 1, 2, 2, 2)  # a map for each time step
    assert_close(evidence, by_hand)
    assert evidence.abs().max() > 0


def test_names_of_weights_are_timms():
    names = build("sifa_transformer_nano").state_dict().keys()
    assert {"layers.0.blocks.1.attn.qkv.weight", "layers.1.downsample.reduction.weight"} <= names
    assert {"layer1.0.conv1.weight", "layer4.1.aa.conv_offset.weight"} <= build("sifa_net_nano").state_dict().keys()
