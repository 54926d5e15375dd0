import io
from collections.abc import Iterator

import av
import pytest

from gb28181gw.media.tracks import Codec
from gb28181gw.sim.content import ContentSpec
from gb28181gw.sim.live import LiveContent
from tests.support.sim import simulated
from tests.support.sim_platform import MiniPlatform, platform, udp_sink


@pytest.fixture
def live() -> Iterator[LiveContent]:
    made = LiveContent(ContentSpec(width=320, height=240, gop=250, bitrate_kbps=300))
    made.start()
    yield made
    made.stop()


async def test_pictures_appear_and_decode(live: LiveContent) -> None:
    await MiniPlatform().until(lambda: live.newest() >= 10)
    assert live.ready(10)
    assert not live.ready(10_000)
    data = b"".join(live.access(number).data for number in range(11))
    with av.open(io.BytesIO(data), format="h264") as container:
        assert len(list(container.decode(video=0))) == 11
    assert live.access(0).key
    assert [live.access(number).dts_90k for number in range(3)] == [0, 3600, 7200]
    assert live.access(5).audio


async def test_a_key_frame_on_request(live: LiveContent) -> None:
    await MiniPlatform().until(lambda: live.newest() >= 5)
    live.want_key()
    await MiniPlatform().until(lambda: live.key_at_or_before(live.newest()) > 0)


async def test_a_stream_starts_with_a_key_frame() -> None:
    async with platform() as gateway, udp_sink() as sink, simulated(gateway.address, live_clock=True) as sim:
        await sim.registered()
        channel = sim.device.channels[0].id
        gateway.invite(sim.device.id, channel, gateway.offer(sink.port))
        await gateway.until(lambda: len(sink.packets) > 20)
        ps = sink.program_stream()
        # Pack header (14 bytes), then the system header of a key frame's pack.
        assert ps[14:18] == b"\0\0\1\xbb"
        assert sim.device.options.video_codec is Codec.H264
