"""Text in pictures: a font that has its letters, and text cut to fit."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import TypeAlias

from PIL import ImageFont

Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont

_SYSTEM_FONTS = ("DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "arial.ttf")
_NO_LETTER = "\uffff"  # drawn like every letter that a font lacks


def font_for(texts: Iterable[str], size: int) -> Font:
    """Pillow's own font, so that pictures are the same everywhere; where it lacks letters, a system font that has them.

    Args:
        texts: The texts to be drawn.
        size: Size of the font in pixels.
    """
    letters = set("".join(texts))
    own = ImageFont.load_default(size)
    if not _lacking(own, letters):
        return own
    for name in _SYSTEM_FONTS:
        try:
            font = ImageFont.truetype(name, size)
        except OSError:
            continue
        if not _lacking(font, letters):
            return font
    return own


def fit(text: str, font: Font, width: int, *, instead: str = "") -> str:
    """A text as a font can draw it, with its end cut off if it is wider than `width` pixels.

    A letter that the font lacks loses its accent; if that does not help, `instead` replaces the text, or a question
    mark the letter.
    """
    lacking = _lacking(font, set(text))
    plain = {letter: unicodedata.normalize("NFKD", letter)[0] for letter in lacking}
    unknown = _lacking(font, set(plain.values()))
    if unknown and instead:
        return instead
    text = "".join("?" if plain.get(letter) in unknown else plain.get(letter, letter) for letter in text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."


def _lacking(font: Font, letters: set[str]) -> set[str]:
    """The letters that a font draws like one that does not exist."""
    none = bytes(font.getmask(_NO_LETTER))
    return {letter for letter in letters if not letter.isascii() and bytes(font.getmask(letter)) == none}
