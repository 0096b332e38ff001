from __future__ import annotations

from pathlib import Path

import pytest
from tiny_videos import write_videos


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight training and three validation videos in two classes. Read them only."""
    folder = write_videos(tmp_path_factory.mktemp("videos"), num_train=4, num_val=2)
    (folder / "val" / "red" / "1.mp4").unlink()
    return folder
