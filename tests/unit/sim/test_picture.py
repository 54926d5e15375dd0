import pytest

from gb28181gw.sim import font
from gb28181gw.sim.picture import Painter


def test_every_glyph_fits_its_cell() -> None:
    for runs in font.GLYPHS.values():
        for row, column, length in runs:
            assert 0 <= row < font.GLYPH_HEIGHT
            assert column >= 0
            assert column + length <= font.GLYPH_WIDTH


def test_glyphs_differ() -> None:
    assert len(set(font.GLYPHS.values())) == len(font.GLYPHS)


def test_runs_of_a_minus_and_a_one() -> None:
    assert font.runs_of("-") == [(3, 0, 5)]
    assert font.runs_of("1")[-1] == (6, 1, 3)
    assert font.runs_of("a") == font.runs_of("A")
    assert font.runs_of("东") == font.runs_of("?")
    assert font.text_width("AB") == 11


@pytest.mark.parametrize(("width", "height"), [(64, 64), (176, 144), (320, 240), (718, 404), (1280, 720)])
def test_every_size_can_be_painted(width: int, height: int) -> None:
    painter = Painter(width, height, 25, "A TITLE THAT IS LONG")
    for number in (0, 1, 60):
        picture = painter.paint(number, "00:00.00", "footer")
        assert (picture.width, picture.height, picture.format.name) == (width, height, "yuv420p")


def test_text_changes_only_its_panel() -> None:
    first = Painter(320, 240, 25, "X").paint(0, "00:00.00")
    second = Painter(320, 240, 25, "X").paint(0, "11:11.11")
    stride = first.planes[0].line_size
    a, b = bytes(first.planes[0]), bytes(second.planes[0])
    changed = {
        row
        for row in range(240)
        if a[row * stride : (row + 1) * stride] != b[row * stride : (row + 1) * stride]
    }
    assert changed
    assert max(changed) < 20
