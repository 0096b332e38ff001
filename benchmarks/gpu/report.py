"""The JSON and the Markdown of a check, written anew after every line: what is there is whole, however a run ends."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Report:
    """Stages by name, each with what it wrote and how it ended."""

    def __init__(self, folder: Path, device: str) -> None:
        self.folder = folder
        self.content: dict[str, Any] = {"setting": setting(device), "stages": {}}

    def begin(self, name: str) -> None:
        self.content["stages"][name] = {"status": "running", "lines": []}
        self.write()

    def add(self, name: str, line: dict[str, Any]) -> None:
        self.content["stages"][name]["lines"].append(line)
        self.write()

    def end(self, name: str, ended: dict[str, Any]) -> None:
        stage = self.content["stages"][name]
        stage.update(ended)
        if stage["status"] == "done" and any(line["kind"] == "failed" for line in stage["lines"]):
            stage["status"] = "failed"
        self.write()

    @property
    def failed(self) -> bool:
        return any(stage["status"] in ("failed", "running") for stage in self.content["stages"].values())

    def write(self) -> None:
        _replace(self.folder / "check.json", json.dumps(self.content, indent=2) + "\n")
        _replace(self.folder / "check.md", markdown(self.content))


def setting(device: str) -> dict[str, str]:
    """Device, versions, date and commit."""
    import torch

    name = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU"
    return {
        "device": name,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "PyTorch": torch.__version__,
        "CUDA": str(torch.version.cuda),
        "Python": platform.python_version(),
    }


def _commit() -> str:
    if shutil.which("git") is None:
        return "no git"
    command = ["git", "describe", "--always", "--dirty"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    return said.strip() or "not a checkout"


def markdown(content: dict[str, Any]) -> str:
    parts = [f"# Check on {content['setting']['device']}"]
    parts.append("; ".join(f"{name} {value}" for name, value in content["setting"].items()))
    rows = [
        [name, stage["status"], str(stage.get("seconds", "")), stage.get("why", "")]
        for name, stage in content["stages"].items()
    ]
    parts.append(_table(["stage", "result", "s", "why"], rows))
    for name, stage in content["stages"].items():
        parts.append(f"## {name}: {stage['status']}")
        parts += _stage(stage)
    return "\n\n".join(parts) + "\n"


def _stage(stage: dict[str, Any]) -> list[str]:
    tables: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    notes = []
    for line in stage["lines"]:
        if line["kind"] == "row":
            tables.setdefault((line["table"], *line["cells"]), []).append(line["cells"])
        elif line["kind"] in ("failed", "left out"):
            notes.append(f"- {line['kind']}: {line['what']}: {line['why']}")
    parts = [
        f"{head}\n\n{_table(names, [list(row.values()) for row in rows])}" for (head, *names), rows in tables.items()
    ]
    parts += ["\n".join(notes)] if notes else []
    if "tail" in stage:
        parts.append(f"```\n{stage['tail']}\n```")
    return parts


def _table(head: list[str], rows: list[list[Any]]) -> str:
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in cells)


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(path.name + ".new")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)
