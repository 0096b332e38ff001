"""Parts of a self-contained HTML page: no scripts, nothing loaded from outside, light and dark, legible on a phone.

All text is escaped here, so that names of files and classes may hold anything.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --ink: #1c2733; --faint: #5b6875; --paper: #f4f6f8; --card: #fff; --line: #d9e0e7;
  --blue: #1f6fb5; --bad: #b3261e; --bad-paper: #fdecea; --good: #1b7a3d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ee; --faint: #9aa7b4; --paper: #12171d; --card: #1b222a;
  --line: #333e4a; --blue: #6cb2f0; --bad: #ff9d94; --bad-paper: #3a1815; --good: #74d596; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 64rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 .75rem; }
p { margin: .25rem 0 .75rem; overflow-wrap: anywhere; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1rem; margin: 1rem 0; }
.faint { color: var(--faint); font-size: .9rem; }
.banner { background: var(--bad-paper); border: 2px solid var(--bad); }
.banner h2, .bad { color: var(--bad); }
.good { color: var(--good); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .75rem; margin: 1rem 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .6rem .9rem; }
.tile b { display: block; font-size: 1.4rem; line-height: 1.3; white-space: nowrap; }
.scroll { overflow-x: auto; }
.scroll:focus-visible { outline: 2px solid var(--blue); }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { color: var(--faint); font-weight: 600; white-space: nowrap; }
tbody th { font-weight: 500; min-width: 7.5rem; }
td, tbody th { overflow-wrap: anywhere; max-width: 26rem; }
td:not(.number) { min-width: 4rem; }
@media (max-width: 30rem) { section { padding: .75rem; } table { font-size: .85rem; } th, td { padding: .3rem; } }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
summary { cursor: pointer; padding: .6rem 0; color: var(--blue); }
img { display: block; max-width: 100%; height: auto; border-radius: .3rem; background: #fff; }
.scroll > img { max-width: none; margin: 0 auto; }
.scroll > img.large { width: 100%; min-width: 36rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 18rem), 1fr)); gap: 1rem; }
figure { margin: 0; }
figure img { width: 100%; }
figcaption { font-size: .9rem; overflow-wrap: anywhere; padding-top: .3rem; }
"""


def page(title: str, *parts: str) -> str:
    """A whole page made of parts that are HTML already."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
{"".join(f"{part}{chr(10)}" for part in parts if part)}</main>
</body>
</html>
"""


def section(title: str, *parts: str, css: str = "") -> str:
    """A titled box around parts that are HTML already."""
    return f'<section class="{css}"><h2>{escape(title)}</h2>{"".join(parts)}</section>'


def paragraph(text: str, *, css: str = "") -> str:
    return f'<p class="{css}">{escape(text)}</p>'


def tiles(values: Mapping[str, str]) -> str:
    """Figures at a glance: a large value above its name."""
    boxes = (f'<div class="tile"><b>{escape(value)}</b>{escape(name)}</div>' for name, value in values.items())
    return f'<div class="tiles">{"".join(boxes)}</div>'


def table(
    headers: Sequence[str], rows: Iterable[Sequence[Any]], *, numbers: Sequence[int] = (), caption: str = ""
) -> str:
    """A table that scrolls sideways, by itself, where it is too wide.

    Args:
        headers: Names of the columns; the first column names its row.
        rows: Values, formatted by `str`.
        numbers: Indices of the columns to align right.
        caption: What the table shows, for screen readers.
    """
    classes = [' class="number"' if i in numbers else "" for i in range(len(headers))]
    head = "".join(f'<th scope="col"{css}>{escape(name)}</th>' for name, css in zip(headers, classes, strict=True))
    body = []
    for first, *others in rows:
        cells = "".join(f"<td{css}>{escape(str(v))}</td>" for v, css in zip(others, classes[1:], strict=True))
        body.append(f'<tr><th scope="row"{classes[0]}>{escape(str(first))}</th>{cells}</tr>')
    text = escape(caption or headers[0])
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def folded(summary: str, *parts: str) -> str:
    """Parts, HTML already, folded away until tapped."""
    return f"<details><summary>{escape(summary)}</summary>{''.join(parts)}</details>"


def picture(content: bytes, *, alt: str, kind: str = "png") -> str:
    """A picture embedded in the page, no wider than its place."""
    return f'<img src="data:image/{kind};base64,{base64.b64encode(content).decode()}" alt="{escape(alt)}">'


def wide_picture(content: bytes, *, alt: str, css: str = "") -> str:
    """A PNG that keeps its size and scrolls sideways, since scaled down to a phone it would be illegible."""
    image = picture(content, alt=alt).replace("<img", f'<img class="{css}"', 1)
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(alt)}">{image}</div>'


def card(image: str, *lines: str) -> str:
    """A picture, HTML already, above lines of text."""
    return f"<figure>{image}<figcaption>{'<br>'.join(escape(line) for line in lines)}</figcaption></figure>"
