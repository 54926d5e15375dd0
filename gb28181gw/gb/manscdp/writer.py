"""The strict writer: elements in the order of Annex A, one a line, escaped, in the peer's character set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from gb28181gw.gb.charset import Charset, encode
from gb28181gw.gb.exceptions import GbLocalError
from gb28181gw.gb.manscdp.document import FORBIDDEN


def escape(text: str) -> str:
    """Text of an element. Characters that XML 1.0 forbids become ``?``, so nothing disappears silently."""
    return FORBIDDEN.sub("?", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def number(value: float) -> str:
    """A number as the standard writes it: no exponent, no trailing zeros."""
    return str(value) if isinstance(value, int) else f"{value:.7f}".rstrip("0").rstrip(".")


Root = Literal["Control", "Query", "Notify", "Response"]
"""Root elements (A.1)."""


class Writer:
    """Builds one document. Order of calls is order of elements; only names of our own are written as tags."""

    def __init__(self, root: Root, cmd_type: str, sn: int | None, device_id: str) -> None:
        if sn is None or sn < 0:
            raise GbLocalError("a message cannot be written without its SN (A.2.1.3)")
        self._root = root
        self._lines = [f"<{root}>"]
        self.leaf("CmdType", cmd_type)
        self.leaf("SN", str(sn))
        if device_id:
            self.leaf("DeviceID", device_id)

    def leaf(self, name: str, value: str) -> None:
        """An element with text; with an empty value an empty element."""
        self._lines.append(f"<{name}>{escape(value)}</{name}>")

    def optional(self, name: str, value: str | int | float | None) -> None:
        """An element only if there is a value."""
        if value is None or value == "":
            return
        self.leaf(name, value if isinstance(value, str) else number(value))

    @contextmanager
    def group(self, name: str, num: int | None = None) -> Iterator[None]:
        """An element with children; `num` is the attribute `Num` of lists."""
        self._lines.append(f"<{name}>" if num is None else f'<{name} Num="{num}">')
        yield
        self._lines.append(f"</{name}>")

    def finish(self, charset: Charset) -> bytes:
        """The whole body with declaration; CR LF after each line."""
        lines = [f'<?xml version="1.0" encoding="{charset.value}"?>', *self._lines, f"</{self._root}>", ""]
        return encode("\r\n".join(lines), charset)
