"""What `check` may find, and how findings are shown: lines, a table, CSV."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields

from sifa_zoo.datasets.videos import names_alike
from sifa_zoo.files import csv_bytes

# Kind of finding -> whether it stops training.
KINDS = {
    "classes": True,
    "missing": True,
    "undecodable": True,
    "unlabelled": True,
    "unknown label": True,
    "no times": True,
    "damaged": False,
    "cut off": False,
    "short": False,
    "variable rate": False,
    "mixed sizes": False,
    "rotated": False,
    "mirrored": False,
    "anamorphic": False,
    "HDR": False,
    "two video streams": False,
    "duplicate": False,
    "labels": False,
}
_IMBALANCE = 10  # the largest class has more than so many times the videos of a small one
_MOST_NAMED = 3


@dataclass(frozen=True)
class Finding:
    """Something to know about a video, or with an empty path about a whole split."""

    split: str
    path: str
    kind: str
    detail: str

    @property
    def fatal(self) -> bool:
        """Whether it stops training."""
        return KINDS[self.kind]

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


def about_classes(split: str, counts: Mapping[str, int]) -> list[Finding]:
    """Findings about classes without videos, far smaller than the largest, or of names that differ in case only.

    Args:
        split: The split that they are about.
        counts: The number of videos of each class.
    """
    largest = max(counts.values(), default=0)
    empty = [name for name, count in counts.items() if not count]
    small = [f"{name} ({count})" for name, count in counts.items() if count and count * _IMBALANCE < largest]
    texts = [f"the classes {' and '.join(names)} differ in case only" for names in names_alike(list(counts))]
    if empty:
        texts.append(f"{_number_of(empty)} no video: {_first(empty)}")
    if small:
        texts.append(
            f"{_number_of(small)} less than 1/{_IMBALANCE} of the {largest:,} videos of another: {_first(small)}"
        )
    return [Finding(split, "", "labels", text) for text in texts]


def finding_lines(findings: Iterable[Finding], *, most: int) -> list[str]:
    """A line for each video or split with findings; those that stop training come first."""
    about: dict[str, list[Finding]] = {}
    for finding in findings:
        about.setdefault(finding.path or finding.split, []).append(finding)
    order = sorted(about, key=lambda name: not any(finding.fatal for finding in about[name]))
    lines = [f"{name}: {'; '.join(dict.fromkeys(map(str, about[name])))}" for name in order]
    more = [f"... and {len(lines) - most} more; --csv FILE writes them all"] if len(lines) > most else []
    return [*lines[:most], *more]


def finding_table(findings: Iterable[Finding]) -> list[str]:
    """The number of findings of each kind, and which kinds stop training, as a table in lines."""
    counts = Counter(finding.kind for finding in findings)
    rows = [f"{kind:18} {counts[kind]:7}  {'yes' if fatal else 'no'}" for kind, fatal in KINDS.items()]
    return [f"{'finding':18} {'count':>7}  stops training", *rows]


def findings_csv(findings: Sequence[Finding]) -> bytes:
    """The findings as CSV with a header."""
    columns = (*(field.name for field in fields(Finding)), "stops_training")
    rows = [{**asdict(finding), "stops_training": "yes" if finding.fatal else "no"} for finding in findings]
    return csv_bytes(rows, columns=columns)


def _number_of(classes: Sequence[str]) -> str:
    return "1 class has" if len(classes) == 1 else f"{len(classes):,} classes have"


def _first(names: Sequence[str]) -> str:
    return ", ".join([*names[:_MOST_NAMED], *(["..."] if len(names) > _MOST_NAMED else [])])
