from __future__ import annotations

import pytest
from PIL import ImageFont

from sifa_zoo.evaluation.lettering import fit, font_for

OWN = ImageFont.load_default(13)


def test_pillows_own_font_where_it_has_all_letters() -> None:
    assert font_for(["waving", "<b>"], 13).getname() == OWN.getname()


def test_a_font_of_the_system_where_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, truetype = [], ImageFont.truetype

    def no_system_fonts(font: object, size: float, **options: object) -> ImageFont.FreeTypeFont:
        if not isinstance(font, str):  # Pillow's own
            return truetype(font, size, **options)
        asked.append((font, size))
        raise OSError

    monkeypatch.setattr(ImageFont, "truetype", no_system_fonts)
    assert font_for(["日本"], 13).getname() == OWN.getname()
    assert ("NotoSansCJK-Regular.ttc", 13) in asked


@pytest.mark.parametrize(
    ("text", "instead", "drawn"),
    [
        ("waving", "7", "waving"),
        ("évasion", "7", "evasion"),
        ("日本 run", "", "?? run"),
        ("日本 run", "7", "7"),
        ("a name that is far too long", "7", "a name that..."),
    ],
)
def test_names_as_the_font_can_draw_them(text: str, instead: str, drawn: str) -> None:
    assert fit(text, OWN, 80, instead=instead) == drawn
