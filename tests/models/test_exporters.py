"""Models in the graphs of other programs: with PyTorch's numbers at other sizes, too, or refused aloud."""

import functools
import io
import subprocess
import sys

import pytest
import torch
from nano_models import NANO, SMALL, build, clip, with_moving_taps
from torch.testing import assert_close

DYNAMIC = torch.export.Dim.AUTO
MODELS = list(SMALL)
ANY_FRAMES, ANY_SIZE = (
    NANO,
    ["sifa_net_nano", "timm:resnet18"],
)  # the others are set to a number of frames, or to a size


def built(name, backend="torch"):
    model = with_moving_taps(build(name, num_frames=16, kernel_size=1, **SMALL[name])).eval()
    model.set_backend(backend)
    return model


def clips(name, *, batch=True, frames=True, size=True):
    """Clips that differ from the first one in all that a model may leave open."""
    yield clip(2, num_frames=16)
    if batch:
        yield clip(3, num_frames=16)
    if frames and name in ANY_FRAMES:
        yield clip(3, num_frames=20)
    if size and name in ANY_SIZE:
        yield clip(2, num_frames=16, size=96)


def assert_the_same(run, model, name, **varied):
    with torch.inference_mode():
        for x in clips(name, **varied):
            assert_close(run(x), model(x), atol=1e-4, rtol=1e-4)


@functools.cache
def exported(name, backend="torch"):
    """The graph of a model that leaves open all that the model does."""
    dims = (0, *((2,) if name in ANY_FRAMES else ()), *((3, 4) if name in ANY_SIZE else ()))
    shapes = (dict.fromkeys(dims, DYNAMIC),)
    return torch.export.export(built(name, backend), (clip(2, num_frames=16),), dynamic_shapes=shapes)


@functools.cache
def onnx_model(name):
    return torch.onnx.export(exported(name), optimize=False, verbose=False).model_proto.SerializeToString()


@pytest.mark.parametrize("backend", ["auto", "torch"])
@pytest.mark.parametrize("name", MODELS)
def test_export(name, backend):
    program = exported(name, backend)
    assert any("sifa." in str(node.target) for node in program.graph.nodes) is (backend == "auto")
    assert_the_same(program.module(), built(name, backend), name)


@pytest.mark.parametrize("name", MODELS)
def test_a_graph_of_one_length_and_size_refuses_others(name):
    run = torch.export.export(built(name), (clip(2, num_frames=16),)).module()
    for x in (clip(2, num_frames=20), clip(2, num_frames=16, size=96)):
        with pytest.raises(AssertionError, match="Guard failed"):
            run(x)


@pytest.mark.parametrize("name", ANY_FRAMES)
def test_a_graph_for_any_length_is_made_from_twelve_frames_or_more(name):
    """With fewer, one pair of time steps is left, and `torch.export` takes a size of one to be fixed."""
    run = torch.export.export(built(name), (clip(2, num_frames=8),), dynamic_shapes=({2: DYNAMIC},)).module()
    with pytest.raises(AssertionError, match="Guard failed"):
        run(clip(2, num_frames=16))


@pytest.mark.parametrize("backend", ["auto", "torch"])
@pytest.mark.parametrize("name", MODELS)
def test_trace(name, backend):
    model = built(name, backend)
    file = io.BytesIO()
    with torch.no_grad():
        torch.jit.save(torch.jit.trace(model, clip(2, num_frames=16), check_trace=False), file)
    file.seek(0)
    assert_the_same(torch.jit.load(file), model, name, frames=False, size=False)


@pytest.mark.parametrize("name", MODELS)
def test_a_trace_takes_other_lengths_and_sizes_or_refuses_them(name):
    model = built(name)
    with torch.no_grad():
        traced = torch.jit.trace(model, clip(2, num_frames=16), check_trace=False)
    assert_the_same(traced, model, name)
    for batch in (1, 4, 9):  # of which sizes could come out even that are not meant
        for x in (clip(batch, num_frames=20), clip(batch, num_frames=16, size=96)):
            if name in (ANY_FRAMES if x.shape[2] == 20 else ANY_SIZE):
                continue
            with pytest.raises(RuntimeError, match="expanded size"):
                traced(x)


@pytest.mark.parametrize(("backend", "loads"), [("auto", False), ("torch", True)])
def test_saved_graphs_need_the_package_only_for_its_operators(tmp_path, backend, loads):
    model = built("sifa_net_nano", backend)
    x = clip(2, num_frames=16)
    with torch.no_grad():
        torch.jit.trace(model, x, check_trace=False).save(tmp_path / "trace.pt")
    torch.export.save(torch.export.export(model, (x,)), tmp_path / "exported.pt2")
    for load in (
        f"torch.jit.load({str(tmp_path / 'trace.pt')!r})",
        f"torch.export.load({str(tmp_path / 'exported.pt2')!r})",
    ):
        for first in ("", "import sifa_zoo; "):
            done = subprocess.run(
                [sys.executable, "-c", f"import torch; {first}{load}"], capture_output=True, text=True
            )
            assert (done.returncode == 0) is (loads or bool(first)), done.stderr
            assert loads or first or "sifa" in done.stderr


@pytest.mark.parametrize("name", MODELS)
def test_no_graph_drops_frames(name):
    """18 frames are four groups and a half."""
    pytest.importorskip("onnxscript")
    x = clip(2, num_frames=18)
    with torch.no_grad():
        traced = torch.jit.trace(built(name), clip(2, num_frames=16), check_trace=False)
    for run in (built(name), traced, exported(name).module(), in_onnxruntime(onnx_model(name))):
        with pytest.raises(Exception, match=r"multiple of 4|sizes|expanded size|Guard|ONNXRuntimeError"):
            run(x)


def in_onnxruntime(model):
    session = pytest.importorskip("onnxruntime").InferenceSession(model)
    (entry,) = session.get_inputs()
    return lambda x: torch.from_numpy(session.run(None, {entry.name: x.numpy()})[0])


@pytest.mark.parametrize("name", MODELS)
def test_onnx(name):
    pytest.importorskip("onnxscript")
    assert_the_same(in_onnxruntime(onnx_model(name)), built(name), name)


@pytest.mark.parametrize("name", MODELS)
def test_legacy_onnx(name):
    """The exporter by tracing keeps the sizes that it saw, even where they are said to vary: others are refused."""
    pytest.importorskip("onnx")
    model, file = built(name), io.BytesIO()
    axes = {"clip": [0, 2, 3, 4]}
    torch.onnx.export(
        model, clip(2, num_frames=16), file, dynamo=False, input_names=["clip"], dynamic_axes=axes, opset_version=18
    )
    run = in_onnxruntime(file.getvalue())
    traced, *others = [clip(2, num_frames=16), clip(3, num_frames=16), clip(2, num_frames=20), clip(2, 16, size=96)]
    with torch.inference_mode():
        assert_close(run(traced), model(traced), atol=1e-4, rtol=1e-4)
    for x in others:
        with pytest.raises(Exception, match="ONNXRuntimeError"):
            run(x)


@pytest.mark.parametrize("name", MODELS)
def test_onnx_refuses_native_operators(name):
    pytest.importorskip("onnxscript")
    model = built(name, "auto")
    with pytest.raises(RuntimeError, match="set_backend"):
        torch.onnx.export(model, clip(2, num_frames=16), io.BytesIO(), dynamo=False)
    with pytest.raises(RuntimeError, match="sifa"):
        torch.onnx.export(model, (clip(2, num_frames=16),), dynamo=True, verbose=False)


@pytest.mark.parametrize("name", MODELS)
def test_openvino(name):
    openvino = pytest.importorskip("openvino")
    model = built(name)
    converted = openvino.convert_model(exported(name))
    compiled = openvino.compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert_the_same(lambda x: torch.from_numpy(compiled(x.numpy())[0]), model, name)


@pytest.mark.parametrize("name", MODELS)
def test_what_reads_python_fails_aloud(name):
    """TorchScript's compiler and FX, on which torchvision's `create_feature_extractor` stands."""
    from torchvision.models.feature_extraction import create_feature_extractor

    model = built(name)
    for read in (torch.jit.script, torch.fx.symbolic_trace, lambda m: create_feature_extractor(m, ["head"])):
        with pytest.raises(Exception, match=r"."):
            read(model)
