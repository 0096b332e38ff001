"""A Hub on loopback for every test that asks for one; no test keeps indices of videos."""

import huggingface_hub.constants as hf
import pytest
from hub_server import HubServer

pytest_plugins = ["odd_videos", "runs"]


def use_endpoint(monkeypatch, url):
    """What HF_ENDPOINT does when the client is imported, for a client that is imported already."""
    monkeypatch.setattr(hf, "ENDPOINT", url)
    monkeypatch.setattr(hf, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture(autouse=True)
def _no_indices_on_disk(monkeypatch):
    """Tests neither read nor fill the user's cache of video indices."""
    monkeypatch.setenv("SIFA_ZOO_INDEX", "off")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The Hub that the real client of this process talks to, with an empty cache and no token."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    with HubServer() as server:
        use_endpoint(monkeypatch, server.url)
        monkeypatch.setattr(hf, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(hf, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(hf, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hf, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(hf, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        yield server
