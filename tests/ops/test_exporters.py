"""The operators in the graphs of other programs: as in PyTorch at other sizes, too, or refused."""

import io
import shutil

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.testing import assert_close

from sifa_zoo.ops import add_context, inter_frame_attention, motion_saliency

TRACED, OTHERS = (2, 3, 5, 6), [(3, 4, 7, 4), (1, 5, 3, 9)]  # clips, time steps, height, width
DYNAMIC = torch.export.Dim.DYNAMIC


class Attend(torch.nn.Module):
    def __init__(self, backend="torch", residual=False):
        super().__init__()
        self.options = {"kernel_size": 2, "backend": backend, "residual": residual}

    def forward(self, x, offset):
        return inter_frame_attention(x, offset, **self.options)

    @staticmethod
    def draw(n, t, h, w):
        generator = torch.Generator().manual_seed(n + t + h + w)
        clip = torch.randn(n, 4, t, h, w, generator=generator)
        return clip, 1.5 * torch.randn(n, 8, t, h, w, generator=generator)


class Surroundings(torch.nn.Module):
    """Both other operators."""

    def __init__(self, backend="torch"):
        super().__init__()
        self.backend = backend

    def forward(self, clip, context):
        frames = motion_saliency(clip, backend=self.backend).transpose(1, 2).flatten(0, 1)
        return add_context(frames, context, clip[:, :, 1:].transpose(1, 2).flatten(0, 1), backend=self.backend)

    @staticmethod
    def draw(n, t, h, w):
        clip, offset = Attend.draw(n, t, h, w)
        return clip, offset[:, :4, 0, 0, 0]


def residual(backend="torch"):
    return Attend(backend, residual=True)


MODULES = pytest.mark.parametrize("build", [Attend, residual, Surroundings], ids=["attend", "residual", "surroundings"])


def assert_the_same(run, module):
    for sizes in [TRACED, *OTHERS]:
        inputs = module.draw(*sizes)
        assert_close(run(*inputs), module(*inputs))


def any_size(inputs):
    return tuple({dim: DYNAMIC for dim in range(tensor.ndim) if dim != 1} for tensor in inputs)


def exported(module, *, dynamic=True):
    inputs = module.draw(*TRACED)
    return torch.export.export(module, inputs, dynamic_shapes=any_size(inputs) if dynamic else None)


def in_onnxruntime(model):
    """A function that runs an ONNX model, in a file or in bytes."""
    session = pytest.importorskip("onnxruntime").InferenceSession(model)
    names = [entry.name for entry in session.get_inputs()]

    def run(*inputs):
        (out,) = session.run(None, dict(zip(names, (tensor.numpy() for tensor in inputs), strict=True)))
        return torch.from_numpy(out)

    return run


@MODULES
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_export(build, backend):
    module = build(backend)
    program = exported(module)
    assert any("sifa" in str(node.target) for node in program.graph.nodes) is (backend == "auto")
    assert_the_same(program.module(), module)


def test_no_graph_assigns_to_slices():
    """OpenVINO has neither."""
    targets = {str(node.target) for node in exported(residual()).run_decompositions().graph.nodes}
    assert not [name for name in targets if "empty" in name or "scatter" in name], targets


@MODULES
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_trace(build, backend):
    module = build(backend)
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(module, module.draw(*TRACED)), file)
    file.seek(0)
    loaded = torch.jit.load(file)
    assert_the_same(loaded, module)
    inputs = [tensor.requires_grad_() for tensor in module.draw(*OTHERS[0])]
    gradients = [torch.autograd.grad(run(*inputs).square().sum(), inputs) for run in (loaded, module)]
    assert_close(*gradients, atol=1e-4, rtol=1e-4)


@MODULES
def test_onnx(build, tmp_path):
    pytest.importorskip("onnxscript")
    module = build()
    path = tmp_path / "model.onnx"
    torch.onnx.export(exported(module), optimize=False, verbose=False).save(path)
    assert_the_same(in_onnxruntime(path), module)


@MODULES
def test_legacy_onnx(build):
    pytest.importorskip("onnx")
    module, file = build(), io.BytesIO()
    inputs, names = module.draw(*TRACED), ["first", "second"]
    axes = {name: list(sizes) for name, sizes in zip(names, any_size(inputs), strict=True)}
    torch.onnx.export(module.eval(), inputs, file, dynamo=False, input_names=names, dynamic_axes=axes)
    assert_the_same(in_onnxruntime(file.getvalue()), module)


@MODULES
def test_native_operators_are_refused_by_onnx(build):
    pytest.importorskip("onnxscript")
    module = build("auto").eval()
    inputs = module.draw(*TRACED)
    with pytest.raises(RuntimeError, match="set_backend"):
        torch.onnx.export(module, inputs, io.BytesIO(), dynamo=False)
    with pytest.raises(RuntimeError, match="sifa"):
        torch.onnx.export(module, inputs, dynamo=True, verbose=False)
    assert module(*inputs).isfinite().all()


@MODULES
def test_openvino(build):
    openvino = pytest.importorskip("openvino")
    module = build()
    model = openvino.convert_model(exported(module))
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(*inputs):
        (out,) = compiled([tensor.numpy() for tensor in inputs]).values()
        return torch.from_numpy(out)

    assert_the_same(run, module)


class Block(torch.nn.Module):
    """All three operators with the convolutions around them."""

    def __init__(self, backend):
        super().__init__()
        self.backend = backend
        self.first, self.offset = torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, frames, num_steps):
        frames = self.first(frames)
        clip = frames.unflatten(0, (-1, num_steps)).transpose(1, 2)
        saliency = motion_saliency(clip, backend=self.backend).transpose(1, 2).flatten(0, 1)
        offset = self.offset(saliency).unflatten(0, (-1, num_steps - 1)).transpose(1, 2)
        attended = inter_frame_attention(clip, offset, kernel_size=1, residual=True, backend=self.backend)
        return add_context(attended.transpose(1, 2).flatten(0, 1), clip.mean((2, 3, 4)), frames, backend=self.backend)


def assert_trains(compiled, module, sizes, memory_format=torch.contiguous_format):
    """The same result and gradients of all weights."""
    for n, t, h, w in sizes:
        frames = torch.randn(n * t, 3, h, w).to(memory_format=memory_format)
        results = []
        for function in (compiled, module):
            out = function(frames, t)
            results.append((out, *torch.autograd.grad(out.square().sum(), module.parameters())))
        assert_close(*results, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_compiled_for_training_at_any_size(backend, memory_format):
    module = Block(backend).to(memory_format=memory_format)
    graphs = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(module, dynamic=True, fullgraph=True, backend=graphs)
    assert_trains(compiled, module, [(2, 3, 5, 7), (3, 4, 7, 4), (2, 5, 3, 9)], memory_format)
    assert graphs.frame_count == 1


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor writes C++")
def test_compiled_by_inductor_for_training_at_any_size():
    """PyTorch 2.14 cannot order strides of any size, as those of a view that the second convolution keeps."""
    module = Block("auto")
    compiled = torch.compile(module, dynamic=True, fullgraph=True, options={"layout_optimization": False})
    assert_trains(compiled, module, [(2, 3, 5, 7), (3, 4, 7, 4)])
