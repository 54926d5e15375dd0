"""Whether the gateway can do its work: what `/readyz` tells (O-06)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    STARTING = "starting"
    OK = "ok"
    DEGRADED = "degraded"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The state of the whole and what is wrong, part by part."""

    status: Status
    waiting: tuple[str, ...] = ()
    """Parts that are not up yet."""
    problems: tuple[tuple[str, str], ...] = ()
    """(part, sentence) of parts that are up and do not do all their work."""

    @property
    def ready(self) -> bool:
        """Whether devices can register and streams can start, if perhaps not everything works."""
        return self.status in (Status.OK, Status.DEGRADED)


class HealthBoard:
    """Owner of the parts' states. `parts` are those that must be up before the gateway is ready."""

    def __init__(self, parts: Iterable[str] = ("sip", "media", "rtsp", "registry")) -> None:
        self._waiting = dict.fromkeys(parts)
        self._problems: dict[str, str] = {}
        self._stopping = False

    def up(self, part: str) -> None:
        """The part serves now."""
        self._waiting.pop(part, None)

    def problem(self, part: str, sentence: str) -> None:
        """The part serves, and not all of its work; an empty sentence takes it back."""
        if sentence:
            self._problems[part] = sentence
        else:
            self._problems.pop(part, None)

    def stopping(self) -> None:
        """From now on the gateway is not ready, until its end."""
        self._stopping = True

    def health(self) -> Health:
        if self._stopping:
            status = Status.STOPPING
        elif self._waiting:
            status = Status.STARTING
        else:
            status = Status.DEGRADED if self._problems else Status.OK
        return Health(status=status, waiting=tuple(self._waiting), problems=tuple(self._problems.items()))
