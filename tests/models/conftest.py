import pytest
import torch


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    """Where a test runs; on a GPU without TF32, in which cuDNN computes float32 by default."""
    if request.param == "cpu":
        yield torch.device("cpu")
        return
    device = request.getfixturevalue("gpu")
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield device
