"""Downloads from a Hub on loopback, by the real client: what is kept, what is refused, and how failures are told."""

import hashlib
import math
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub.constants as hf
import pytest
from conftest import use_endpoint

from sifa_zoo.weights.hub import (
    CorruptError,
    HubError,
    OfflineError,
    RepositoryError,
    WeightsError,
    check_file,
    download,
    split_repo,
    upload,
)

ROOT = Path(__file__).parents[2]
REPO, FILE = "someone/something", "model.safetensors"
DATA = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()
ALTERED = hashlib.sha256(DATA[:-1] + bytes([DATA[-1] ^ 1])).hexdigest()  # as the Hub here corrupts a file


def cached_files() -> list[Path]:
    return [path for path in Path(hf.HF_HUB_CACHE).rglob("*") if path.is_file() and path.stat().st_size > 1000]


@pytest.fixture
def published(hub):
    hub.add(REPO, {FILE: DATA, "config.json": b"{}"})
    return hub


def test_a_file_is_downloaded_once_and_then_taken_from_the_cache(published):
    path = download(REPO, FILE, sha256=SHA256, size=len(DATA))
    assert path.read_bytes() == DATA
    asked = len(published.requests)
    assert download(REPO, FILE, sha256=SHA256, size=len(DATA)) == path
    assert len(published.requests) == asked
    assert len(published.downloads(FILE)) == 1


def test_revisions_are_different_files(published):
    old = published.repos[REPO].branches["main"]
    published.add(REPO, {FILE: DATA[::-1]})
    assert download(REPO, FILE, revision=old).read_bytes() == DATA
    assert download(REPO, FILE).read_bytes() == DATA[::-1]


def test_cache_dir_is_where_files_go(published, tmp_path):
    path = download(REPO, FILE, cache_dir=tmp_path / "elsewhere")
    assert path.is_relative_to(tmp_path / "elsewhere")
    assert not Path(hf.HF_HUB_CACHE).exists()


def test_a_private_repository_needs_the_token(hub, monkeypatch):
    hub.add(REPO, {FILE: DATA}, private=True)
    with pytest.raises(RepositoryError, match="no such repository at .* or it is private; .*HF_TOKEN"):
        download(REPO, FILE)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert download(REPO, FILE).read_bytes() == DATA


@pytest.mark.parametrize(
    ("repo", "file", "revision", "match"),
    [
        ("someone/nothing", FILE, None, "someone/nothing/model.safetensors: no such repository"),
        (REPO, "other.safetensors", None, "has no such file"),
        (REPO, FILE, "v9", "model.safetensors@v9: the repository has no such revision"),
    ],
)
def test_what_the_hub_does_not_have(published, repo, file, revision, match):
    with pytest.raises(RepositoryError, match=match):
        download(repo, file, revision=revision)


def test_a_gated_repository_says_where_to_accept(hub, monkeypatch):
    hub.add(REPO, {FILE: DATA}, gated=True)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    with pytest.raises(RepositoryError, match=f"gated; accept its conditions at {hub.url}/{REPO}"):
        download(REPO, FILE)


def test_a_connection_that_is_cut_is_resumed(published, monkeypatch):
    monkeypatch.setattr(hf, "DOWNLOAD_CHUNK_SIZE", 50_000)
    published.fail("/cdn/", cut_at=100_000)
    assert download(REPO, FILE, sha256=SHA256).read_bytes() == DATA
    assert [request.range for request in published.downloads(FILE)] == [None, "bytes=100000-"]


@pytest.mark.parametrize("status", [429, 503])
def test_a_passing_error_is_asked_again(published, status):
    published.fail("/resolve/", status=status, times=1)
    assert download(REPO, FILE).read_bytes() == DATA


def test_a_lasting_server_error_names_the_status(published):
    published.fail("/cdn/", status=500, times=math.inf)
    with pytest.raises(HubError, match=r"answers with status 500; try again later"):
        download(REPO, FILE)
    assert cached_files() == []


def test_a_short_body_is_never_kept(published):
    published.fail("/cdn/", shorten_to=1000, times=math.inf)
    with pytest.raises(HubError, match="the download broke off .*; call again"):
        download(REPO, FILE)
    assert cached_files() == []
    published.faults.clear()
    assert download(REPO, FILE).read_bytes() == DATA


@pytest.mark.parametrize("known", [SHA256, None], ids=["by the manifest", "by the hash that the Hub states"])
def test_wrong_bytes_are_removed_and_told_with_both_hashes(published, known):
    published.fail("/cdn/", corrupt=True)
    with pytest.raises(CorruptError, match=f"has the sha256 {ALTERED}, expected {SHA256}; it was removed"):
        download(REPO, FILE, sha256=known)
    assert cached_files() == []
    assert download(REPO, FILE, sha256=known).read_bytes() == DATA


def test_a_cached_file_that_was_truncated_is_removed(published):
    path = download(REPO, FILE)
    path.resolve().write_bytes(DATA[:500])
    with pytest.raises(CorruptError, match=f"has 500 bytes, expected {len(DATA)}: it is truncated.*it was removed"):
        download(REPO, FILE, size=len(DATA))
    assert download(REPO, FILE, size=len(DATA)).read_bytes() == DATA


def test_a_connection_that_is_reset_is_an_error_of_the_hub(published):
    published.fail("/cdn/", reset=True, times=math.inf)
    with pytest.raises(HubError, match="the download broke off"):
        download(REPO, FILE)


def test_an_upload_that_the_store_refuses(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    hub.fail("/", status=403, methods=("PUT",), times=math.inf)
    with pytest.raises((HubError, RepositoryError)):
        upload(REPO, {FILE: DATA}, message="first")
    assert all(FILE not in files for files in hub.repos[REPO].commits.values())


def test_a_full_disk_stays_an_error_of_the_disk(published, monkeypatch):
    import huggingface_hub

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.raises(OSError, match="No space left"):
        download(REPO, FILE)


def test_offline_mode_is_told_at_once(published, monkeypatch):
    monkeypatch.setattr(hf, "HF_HUB_OFFLINE", True)
    with pytest.raises(OfflineError, match=f"{REPO}/{FILE} is not in the cache .*hub, and HF_HUB_OFFLINE is set"):
        download(REPO, FILE)
    assert published.requests == []


def endpoint_that_refuses() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


@pytest.mark.parametrize("kind", ["refused", "no such host", "silent"])
def test_no_network_fails_within_five_seconds(hub, monkeypatch, kind):
    endpoints = {"refused": endpoint_that_refuses(), "no such host": "http://hub.invalid", "silent": hub.url}
    hub.fail("/", delay=30, times=math.inf)
    use_endpoint(monkeypatch, endpoints[kind])
    start = time.monotonic()
    with pytest.raises(OfflineError, match=f"{REPO}/{FILE} is not in the cache .*HF_ENDPOINT.* cannot be reached"):
        download(REPO, FILE)
    assert time.monotonic() - start < 5


def test_with_the_file_cached_no_connection_is_tried(published, monkeypatch):
    path = download(REPO, FILE)

    def refuse(*_args, **_kwargs):
        raise AssertionError("a connection was attempted")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert download(REPO, FILE, sha256=SHA256) == path


EIGHT = """
import multiprocessing
from sifa_zoo.weights.hub import download

def one(_):
    return len(download({repo!r}, {file!r}, sha256={sha256!r}).read_bytes())

with multiprocessing.get_context("fork").Pool(8) as pool:
    print(pool.map(one, range(8), chunksize=1))
"""


def test_eight_processes_download_once(published, tmp_path):
    published.fail("/cdn/", delay=1.0, times=1)  # long enough for all to have arrived
    env = {**os.environ, "HF_ENDPOINT": published.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    env.pop("HF_HUB_CACHE", None)
    code = EIGHT.format(repo=REPO, file=FILE, sha256=SHA256)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=200)
    assert done.stdout.strip() == str([len(DATA)] * 8), done.stderr
    assert len(published.downloads(FILE)) == 1


def test_uploads(hub, monkeypatch, tmp_path):
    (tmp_path / "weights").write_bytes(DATA)
    files = {FILE: tmp_path / "weights", "README.md": b"---\nlicense: mit\n---\nhello\n"}
    with pytest.raises(RepositoryError, match="HF_TOKEN"):
        upload(REPO, files, message="without a token")
    monkeypatch.setenv("HF_TOKEN", hub.token)
    commit = upload(REPO, files, message="first")
    assert download(REPO, FILE, revision=commit, sha256=SHA256).read_bytes() == DATA
    hub.fail("/commit/", status=500, methods=("POST",), times=math.inf)
    with pytest.raises(HubError, match="status 500"):
        upload(REPO, {"README.md": b"second"}, message="second")


@pytest.mark.parametrize("name", ["something", "a/b/c", "someone/something@", "/x", "a b/c"])
def test_names_of_repositories(name):
    with pytest.raises(WeightsError, match="expected hf-hub:owner/name"):
        split_repo(name)
    assert split_repo("a/b@v1.0") == ("a/b", "v1.0")


def test_files_are_compared_with_what_is_known(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(DATA)
    check_file(path)
    check_file(path, sha256=SHA256, size=len(DATA))
    with pytest.raises(CorruptError, match=f"has the sha256 {SHA256}, expected {'0' * 64}"):
        check_file(path, sha256="0" * 64)
