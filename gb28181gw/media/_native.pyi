"""The native media plane (native/bind/module.cpp). Only `gb28181gw.media.native` imports it.

Numbers that stand for a choice are places in the enums of native/include/gb28181/spec.hpp. Ids are never 0.
"""

from collections.abc import Sequence

class Track:
    @property
    def codec(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def fps(self) -> float: ...
    @property
    def sample_rate(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def parameter_sets(self) -> tuple[bytes, ...]: ...

def make_track(
    codec: str,
    width: int,
    height: int,
    fps: float,
    sample_rate: int,
    channels: int,
    parameter_sets: Sequence[bytes],
) -> Track: ...
def probe_udp_gro() -> bool: ...

class Event:
    @property
    def target(self) -> int: ...
    @property
    def id(self) -> int: ...
    @property
    def kind(self) -> int: ...
    @property
    def stream(self) -> int: ...
    @property
    def peer(self) -> str: ...
    @property
    def ssrc(self) -> int | None: ...
    @property
    def tracks(self) -> tuple[Track, ...]: ...
    @property
    def detail(self) -> str: ...
    @property
    def bytes_out(self) -> int: ...

class FrameBatch:
    @property
    def sink(self) -> int: ...
    @property
    def frames(self) -> list[tuple[Track, int, int, bool, bytes, float]]:
        """(track, pts_90k, dts_90k, key, payload, arrival)"""

class Engine:
    def __init__(self, workers: int, freeze_on_loss: bool) -> None: ...
    def open_receiver(
        self,
        transport: int,
        host: str,
        port: int,
        ssrc: int,
        payloads: Sequence[tuple[int, str]],
        expected_hosts: Sequence[str],
        strict: bool,
        silence_s: float,
        shared: bool,
    ) -> int: ...
    def open_shared_port(self, host: str, port: int) -> None: ...
    def update_receiver(
        self,
        receiver: int,
        ssrc: int | None,
        payloads: Sequence[tuple[int, str]] | None,
        expected_hosts: Sequence[str] | None,
        parameter_sets: Sequence[bytes],
        connect: tuple[str, int] | None,
        listen: bool,
        acknowledged: bool,
    ) -> None: ...
    def attach(self, receiver: int, stream: int) -> bool: ...
    def close_receiver(self, receiver: int) -> None: ...
    def receiver_counters(
        self, receiver: int
    ) -> (
        tuple[
            int,
            int,
            int,
            int,
            int,
            int,
            int,
            int,
            int,
            float,
            float,
            int,
            int,
            int,
            int | None,
            str,
        ]
        | None
    ): ...
    def create_stream(self) -> int: ...
    def push(self, stream: int, track: Track, pts_90k: int, dts_90k: int, key: bool, data: bytes) -> None: ...
    def close_stream(self, stream: int, reason: str) -> None: ...
    def tracks(self, stream: int) -> tuple[Track, ...]: ...
    def stream_counters(self, stream: int) -> tuple[int, int, int, int, int, int, int, int, int] | None: ...
    def add_socket_sink(
        self,
        stream: int,
        fd: int,
        container: int,
        wrapping: int,
        hevc: int,
        audio: int,
        queue_bytes: int,
        stall_s: float,
        merge_s: float,
        received: bytes,
    ) -> int: ...
    def add_frame_sink(self, stream: int, video: bool, audio: bool, made_audio: bool) -> int: ...
    def add_rtp_sink(
        self,
        stream: int,
        transport: int,
        host: str,
        port: int,
        ssrc: int,
        payload_type: int,
        codec: str,
        video: bool,
        audio: bool,
        remote: tuple[str, int] | None,
        expected_hosts: Sequence[str],
        through: int,
        queue_bytes: int,
        stall_s: float,
    ) -> int: ...
    def update_rtp_sink(
        self,
        sink: int,
        remote: tuple[str, int] | None,
        sending: bool | None,
        ssrc: int | None,
        payload_type: int | None,
    ) -> None: ...
    def rtp_sink_counters(self, sink: int) -> tuple[int, int, int, int, float, str, bool] | None: ...
    def close_sink(self, sink: int) -> None: ...
    def event_fd(self) -> int: ...
    def take(self) -> list[Event | FrameBatch | str]: ...
    def stop(self) -> None: ...
    @property
    def failures(self) -> int: ...
    @property
    def workers(self) -> int: ...
    @property
    def has_gro(self) -> bool: ...
    def set_dial_pause(self, seconds: float) -> None: ...
    def set_rtcp_times(self, report_s: float, silence_s: float) -> None: ...
