"""Weights files from the Hugging Face Hub and its cache, their bytes checked before anyone uses them.

A cached file is used without asking the Hub anything. HF_HUB_OFFLINE, HF_ENDPOINT, HF_TOKEN, HF_HOME and proxies mean
what they mean to `huggingface_hub`. Its versions 1 and 2 use different HTTP libraries, so only its own error classes
are relied on.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections.abc import Mapping
from pathlib import Path

from sifa_zoo.weights.stated_hash import Stated, forget_sha256, remember_sha256, stated_sha256

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
_PATIENCE_SECONDS = 4.0  # for the first answer of the Hub; HF_HUB_ETAG_TIMEOUT, where set, replaces it
_ATTEMPTS = 3


class WeightsError(ValueError):
    """Weights cannot be obtained or do not fit the model; the subclasses say why."""


class UnpublishedError(WeightsError):
    """There are no such weights: nobody has released any under this name."""


class OfflineError(WeightsError):
    """The file is not in the cache, and the Hub cannot be reached or may not be asked."""


class RepositoryError(WeightsError):
    """The Hub has no such repository, revision or file, or refuses this user access."""


class MissingFileError(RepositoryError):
    """The repository is there, but has no such file."""


class HubError(WeightsError):
    """The Hub can be reached but fails: too many requests, a server error, or a transfer that breaks off."""


class CorruptError(WeightsError):
    """A file is not what it should be: it has another hash or size, or is not a safetensors file."""


class CacheError(OSError, WeightsError):
    """The folder in which downloads are kept cannot be read or written."""


class MismatchError(WeightsError):
    """The weights belong to another architecture, or to a model that was built with other arguments."""


def download(
    repo: str,
    file: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    sha256: str | None = None,
    size: int | None = None,
) -> Path:
    """A file of a Hub repository: from the cache, or else downloaded into it.

    Args:
        repo: `owner/name`.
        file: Its path in the repository.
        revision: A commit, branch or tag; None means `main`.
        cache_dir: The cache folder; None takes `huggingface_hub`'s.
        sha256: What the file's hash must be; None takes the hash that the Hub gave with the file, where it gave one.
        size: How many bytes it must have; None for any.

    Returns:
        The file in the cache. If its bytes are wrong, it is removed.

    Raises:
        OfflineError: Within 5 seconds, if it is not cached and the Hub cannot be reached.
        RepositoryError: If the repository, revision or file is missing, private or gated.
        HubError: If the Hub answers with an error, or the download breaks off.
        CorruptError: If the bytes are wrong.
        CacheError: If the cache folder cannot be read or written.
    """
    from huggingface_hub import constants

    what = f"{repo}/{file}{f'@{revision}' if revision else ''}"
    try:
        path = _cached_or_fetched(repo, file, what, revision=revision, cache_dir=cache_dir)
        _check_or_remove(path, file, what, sha256=sha256, size=size)
    except OSError as error:
        raise CacheError(
            f"{what}: the cache {cache_dir or constants.HF_HUB_CACHE} cannot be used ({error}); make it a folder that "
            "can be written and has room, or name another one with cache_dir=, HF_HOME or HF_HUB_CACHE"
        ) from error
    return path


def _cached_or_fetched(repo: str, file: str, what: str, *, revision: str | None, cache_dir: str | Path | None) -> Path:
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(repo, file, cache_dir=cache_dir, revision=revision)
    if isinstance(cached, str):
        return Path(cached)
    stated = _await_hub(repo, file, what, revision=revision, cache_dir=cache_dir)
    path = _fetch(repo, file, what, revision=revision, cache_dir=cache_dir)
    if not path.is_symlink():  # else the name of what it leads to says the hash
        stated = stated or _await_hub(repo, file, what, revision=revision, cache_dir=cache_dir)
        remember_sha256(path, file, stated)
    return path


def _check_or_remove(path: Path, file: str, what: str, *, sha256: str | None, size: int | None) -> None:
    try:
        check_file(path, sha256=sha256 or stated_sha256(path, file), size=size)
    except CorruptError as error:
        with contextlib.suppress(OSError):
            forget_sha256(path, file)
        link = path
        while link.is_symlink():  # to a blob, which may lead on to one that several repositories share
            target = link.parent / link.readlink()
            with contextlib.suppress(OSError):
                link.unlink()
            link = target
        with contextlib.suppress(OSError):
            link.unlink(missing_ok=True)
        removed = "it was removed, so the next call downloads it again"
        fate = "it could not be removed: remove it by hand" if path.exists() else removed
        raise CorruptError(f"{what}: {error}; {fate}") from None


def _await_hub(repo: str, file: str, what: str, *, revision: str | None, cache_dir: str | Path | None) -> Stated | None:
    """What the Hub states about the file, None if it is overloaded; OfflineError unless it answers within seconds.

    By itself `huggingface_hub` tries for more than a minute. In a thread, because a name lookup has no time limit.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    absent = f"{what} is not in the cache {cache_dir or constants.HF_HUB_CACHE}"
    if constants.HF_HUB_OFFLINE:
        raise OfflineError(f"{absent}, and HF_HUB_OFFLINE is set")
    default = constants.HF_HUB_ETAG_TIMEOUT == constants.DEFAULT_ETAG_TIMEOUT
    patience = _PATIENCE_SECONDS if default else constants.HF_HUB_ETAG_TIMEOUT
    url = hf_hub_url(repo, file, revision=revision)
    caught: list[Exception] = []
    stated: list[Stated] = []

    def ask() -> None:
        try:
            metadata = get_hf_file_metadata(url, timeout=patience)
            stated.append(Stated(metadata.commit_hash, metadata.etag))
        except Exception as error:  # looked at below, in the thread that waits
            caught.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(patience + 0.25)
    if thread.is_alive():
        caught.append(TimeoutError(f"no answer within {patience:g} s"))
    if stated:
        return stated[0]
    if isinstance(caught[0], OSError) and caught[0].filename is not None:
        raise caught[0]  # of this machine, such as a token that cannot be read
    if isinstance(named := _named(caught[0], what, repo=repo), HubError):
        return None  # an answer, if only that of an overloaded server, which the download asks again
    if named is not None:
        raise named from caught[0]
    raise OfflineError(
        f"{absent}, and {constants.ENDPOINT} (HF_ENDPOINT) cannot be reached: {_first_line(caught[0])}. "
        "Go online; or copy the cache from a machine that has the file and set HF_HUB_OFFLINE=1; or load a file with "
        "checkpoint_path="
    ) from caught[0]


def _fetch(repo: str, file: str, what: str, *, revision: str | None, cache_dir: str | Path | None) -> Path:
    """Download into the cache, retrying broken connections, which not every version of the client does."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HTTPError

    for attempt in range(_ATTEMPTS):
        try:
            return Path(hf_hub_download(repo, file, revision=revision, cache_dir=cache_dir))
        except (OSError, HTTPError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # such as a full disk
                raise
            named = _named(error, what, repo=repo)
            if named is None and not isinstance(error, OSError) and attempt + 1 < _ATTEMPTS:
                continue
            broken = HubError(f"{what}: the download broke off ({_first_line(error)}); call again to retry")
            raise named or broken from error
    raise AssertionError("unreachable")


def list_files(repo: str, revision: str | None = None) -> list[str]:
    """The paths of a repository's files; empty if the Hub does not say, as this is only for messages."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    try:
        siblings = HfApi().model_info(repo, revision=revision, timeout=_PATIENCE_SECONDS).siblings
    except (OSError, HTTPError):
        return []
    return [sibling.rfilename for sibling in siblings or ()]


def check_file(path: Path, *, sha256: str | None = None, size: int | None = None) -> None:
    """Raise CorruptError, with both values, unless the file has this size and hash; None is not compared."""
    found = path.stat().st_size
    if size is not None and found != size:
        raise CorruptError(f"{path} has {found} bytes, expected {size}: it is truncated or another file")
    if sha256 is not None and (digest := file_sha256(path)) != sha256:
        raise CorruptError(f"{path} has the sha256 {digest}, expected {sha256}")


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def upload(repo: str, files: Mapping[str, bytes | Path], *, message: str, private: bool = False) -> str:
    """Put files into a Hub repository in one commit; the repository is created where there is none.

    Args:
        repo: `owner/name`.
        files: Contents, or files on this machine, by their path in the repository.
        message: Of the commit.
        private: Create it private; ignored for one that exists.

    Returns:
        The commit's hash.

    Raises:
        RepositoryError: If the Hub does not let this user write there.
        HubError: If it cannot be reached, or fails.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HTTPError

    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()]
        return str(api.create_commit(repo, operations=operations, commit_message=message).oid)
    except (OSError, HTTPError, RuntimeError) as error:  # the last where an upload of a large file fails
        if isinstance(error, OSError) and error.errno is not None:
            raise
        broken = HubError(f"{repo}: the upload broke off ({_first_line(error)}); nothing was published, call again")
        raise _named(error, repo, repo=repo) or broken from error


def split_repo(name: str) -> tuple[str, str | None]:
    """Repository and revision of `owner/name@revision`.

    Raises:
        WeightsError: If it is not of this form.
    """
    repo, _, revision = name.partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo) or ("@" in name and not revision):
        raise WeightsError(f"expected hf-hub:owner/name or hf-hub:owner/name@revision, got {name!r}")
    return repo, revision or None


def _named(error: Exception, what: str, *, repo: str) -> WeightsError | None:
    """The `WeightsError` for an error that the Hub answered with; None if there was no answer."""
    from huggingface_hub import constants, errors

    hub = constants.ENDPOINT
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # what went wrong behind "not found in the cache"
    log_in = "log in with `hf auth login` or set HF_TOKEN"
    if isinstance(error, errors.GatedRepoError):
        return RepositoryError(f"{what}: the repository is gated; accept its conditions at {hub}/{repo}, then {log_in}")
    if isinstance(error, errors.RepositoryNotFoundError):
        return RepositoryError(f"{what}: no such repository at {hub}, or it is private; check the name, or {log_in}")
    if isinstance(error, errors.RevisionNotFoundError):
        return RepositoryError(f"{what}: the repository has no such revision")
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return MissingFileError(f"{what}: the repository has no such file")
    cause = error.__cause__ if isinstance(error, RuntimeError) else error
    status = getattr(getattr(cause, "response", None), "status_code", None)
    if status in (401, 403):
        return RepositoryError(f"{what}: {hub} refuses with status {status}; {log_in}")
    return None if status is None else HubError(f"{what}: {hub} answers with status {status}; try again later")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
