import resource

from gb28181gw.sim.fleet import raise_file_limit
from tests.support.sim import simulated
from tests.support.sim_platform import platform, udp_sink


async def test_many_devices_register_and_unregister() -> None:
    async with platform() as gateway:
        async with simulated(gateway.address, count=60, channels=2, keepalive_s=0.5) as sim:
            await sim.registered(timeout_s=20)
            assert len(gateway.registered) == 60
            assert len({str(source) for source in gateway.registered.values()}) == 60
            await sim.until(lambda: sim.totals.keepalives >= 60)
            totals = sim.totals
            assert (totals.devices, totals.registered, totals.register_failures) == (60, 60, 0)
        assert gateway.registered == {}


async def test_devices_start_at_the_asked_pace() -> None:
    async with platform() as gateway, simulated(gateway.address, count=20, register_rate=50.0) as sim:
        await sim.registered()
        assert sim.totals.elapsed_s >= 19 / 50


async def test_channels_of_a_fleet_share_one_content_and_few_have_their_own() -> None:
    async with platform() as gateway, simulated(gateway.address, count=5, channels=2) as sim:
        contents = {
            id(await sim.fleet.content_of(channel.name))
            for device in sim.devices
            for channel in device.channels
        }
        assert len(contents) == 1
    async with platform() as gateway, simulated(gateway.address, channels=2) as sim:
        first, second = sim.device.channels
        assert await sim.fleet.content_of(first.name) is not await sim.fleet.content_of(second.name)
        assert sim.fleet.title_of("东门 1-2") == "CAMERA 1-2"


async def test_several_streams_at_once() -> None:
    async with (
        platform() as gateway,
        udp_sink() as one,
        udp_sink() as two,
        simulated(gateway.address, count=2, channels=1) as sim,
    ):
        await sim.registered()
        for device, sink in zip(sim.devices, (one, two), strict=True):
            gateway.invite(
                device.id, device.channels[0].id, gateway.offer(sink.port), call_id=f"c{device.id}"
            )
        await gateway.until(lambda: len(one.packets) > 20 and len(two.packets) > 20)
        assert sim.totals.streams == 2


async def test_seed_is_chosen_when_none_is_given() -> None:
    async with (
        platform() as gateway,
        simulated(gateway.address, seed=None) as first,
        simulated(gateway.address, seed=None) as second,
    ):
        assert first.fleet.seed != second.fleet.seed


def test_file_limit_is_raised_within_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
        raise_file_limit(300)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(300, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
