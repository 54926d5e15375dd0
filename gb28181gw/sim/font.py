"""A bitmap font of 5 x 7 points for the text in the picture: digits, capitals and a little punctuation."""

from __future__ import annotations

GLYPH_WIDTH = 5
GLYPH_HEIGHT = 7
ADVANCE = 6

# Seven rows from the top, each five bits with the left point first.
_ROWS: dict[str, str] = {
    "0": "0E 11 13 15 19 11 0E",
    "1": "04 0C 04 04 04 04 0E",
    "2": "0E 11 01 06 08 10 1F",
    "3": "1F 02 04 02 01 11 0E",
    "4": "02 06 0A 12 1F 02 02",
    "5": "1F 10 1E 01 01 11 0E",
    "6": "06 08 10 1E 11 11 0E",
    "7": "1F 01 02 04 04 04 04",
    "8": "0E 11 11 0E 11 11 0E",
    "9": "0E 11 11 0F 01 02 0C",
    "A": "0E 11 11 1F 11 11 11",
    "B": "1E 11 11 1E 11 11 1E",
    "C": "0E 11 10 10 10 11 0E",
    "D": "1C 12 11 11 11 12 1C",
    "E": "1F 10 10 1E 10 10 1F",
    "F": "1F 10 10 1E 10 10 10",
    "G": "0E 11 10 17 11 11 0F",
    "H": "11 11 11 1F 11 11 11",
    "I": "0E 04 04 04 04 04 0E",
    "J": "07 02 02 02 02 12 0C",
    "K": "11 12 14 18 14 12 11",
    "L": "10 10 10 10 10 10 1F",
    "M": "11 1B 15 15 11 11 11",
    "N": "11 11 19 15 13 11 11",
    "O": "0E 11 11 11 11 11 0E",
    "P": "1E 11 11 1E 10 10 10",
    "Q": "0E 11 11 11 15 12 0D",
    "R": "1E 11 11 1E 14 12 11",
    "S": "0F 10 10 0E 01 01 1E",
    "T": "1F 04 04 04 04 04 04",
    "U": "11 11 11 11 11 11 0E",
    "V": "11 11 11 11 11 0A 04",
    "W": "11 11 11 15 15 1B 11",
    "X": "11 11 0A 04 0A 11 11",
    "Y": "11 11 0A 04 04 04 04",
    "Z": "1F 01 02 04 08 10 1F",
    " ": "00 00 00 00 00 00 00",
    ":": "00 04 04 00 04 04 00",
    "-": "00 00 00 1F 00 00 00",
    ".": "00 00 00 00 00 0C 0C",
    "/": "00 01 02 04 08 10 00",
    "+": "00 04 04 1F 04 04 00",
    "#": "0A 0A 1F 0A 1F 0A 0A",
    "_": "00 00 00 00 00 00 1F",
    "?": "0E 11 01 02 04 00 04",
}


def _runs(rows: str) -> tuple[tuple[int, int, int], ...]:
    """Lit points as (row, first column, length)."""
    found: list[tuple[int, int, int]] = []
    for row, text in enumerate(rows.split()):
        bits = format(int(text, 16), "05b")
        column = 0
        while column < GLYPH_WIDTH:
            if bits[column] == "1":
                length = len(bits[column:]) - len(bits[column:].lstrip("1"))
                found.append((row, column, length))
                column += length
            column += 1
    return tuple(found)


GLYPHS: dict[str, tuple[tuple[int, int, int], ...]] = {char: _runs(rows) for char, rows in _ROWS.items()}
"""Character -> runs of lit points (row, first column, length)."""


def runs_of(text: str) -> list[tuple[int, int, int]]:
    """Runs of a line of text; lower case is written in capitals, what the font lacks as ``?``."""
    found: list[tuple[int, int, int]] = []
    for position, char in enumerate(text.upper()):
        left = position * ADVANCE
        found.extend((row, left + column, length) for row, column, length in GLYPHS.get(char, GLYPHS["?"]))
    return found


def text_width(text: str) -> int:
    """Width of `text` in points."""
    return max(0, len(text) * ADVANCE - 1)
