"""The source rule of the native plane against the Python one."""

from __future__ import annotations

import random

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gb28181gw.media.reference.source import HostSet, Looks, Source, SourceGate, ssrc_variant
from tests.support import native_codecs

codecs = native_codecs.load()

FAST = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SEEDS = st.integers(0, (1 << 64) - 1)
AGREED = 200000001
HOSTS = ("192.0.2.1", "192.0.2.2", "198.51.100.7", "2001:db8::5", "203.0.113.9")
EXPECTED = (
    frozenset[str](),
    frozenset({"192.0.2.1"}),
    frozenset({"192.0.2.0/24", "not an address"}),
    frozenset({"2001:db8::/32", "198.51.100.7", "192.0.2.0/33"}),
)


def _text(source: Source | None) -> str | None:
    if source is None:
        return None
    host = source[0]
    return f"[{host}]:{source[1]}" if ":" in host else f"{host}:{source[1]}"


@FAST
@given(SEEDS)
def test_source_rule(seed: int) -> None:
    rng = random.Random(seed)
    expected, strict = rng.choice(EXPECTED), rng.random() < 0.2
    oracle = SourceGate(ssrc=AGREED, payload_types=frozenset({96, 98}), expected=expected, strict=strict)
    native = codecs.SourceRule(AGREED, [96, 98], sorted(expected), strict)
    sources: list[Source] = [(host, port) for host in rng.sample(HOSTS, 3) for port in (5000, 5002)]
    sources.append((HOSTS[0], 5000, 3))
    ssrcs = [AGREED, AGREED, AGREED, 200000002, 0]
    sequence = {source: rng.choice((0, 65530, 1000)) for source in sources}
    shared = rng.random() < 0.6
    common = rng.randrange(1 << 16)
    now = 10.0
    source, ssrc = sources[0], AGREED
    for number in range(rng.choice((30, 200, 500))):
        now += rng.choice((0.0, 0.01, 0.05)) + (rng.choice((0.3, 2.5, 11.0)) if rng.random() < 0.02 else 0.0)
        if rng.random() < 0.08:
            source = rng.choice(sources)
        if rng.random() < 0.05:
            ssrc = rng.choice(ssrcs)
        event = rng.random()
        if event < 0.01:
            oracle.acknowledged(now)
            native.acknowledged(now)
        elif event < 0.015:
            oracle.unlatch()
            native.unlatch()
        elif event < 0.02:
            oracle.agree(200000002)
            native.agree(200000002)
        elif event < 0.025:
            hosts = rng.choice(EXPECTED)
            oracle.expect(hosts)
            native.expect(sorted(hosts))
        elif event < 0.03:
            oracle.forget(source)
            native.forget(source[0], source[1], source[2] if len(source) == 3 else 0)
        elif event < 0.035:
            oracle.accept_payloads(frozenset({97}))
            native.accept_payloads([97])
        step = rng.choice((1, 1, 1, 1, 1, 1, 0, 2, -1, 20)) if rng.random() < 0.3 else 1
        if rng.random() < 0.01:
            step = rng.choice((600, 2500, 40000, -600))
        if shared:
            common = (common + step) & 0xFFFF
            place = common
        else:
            sequence[source] = place = (sequence[source] + step) & 0xFFFF
        looks = rng.choice((Looks.RECOGNISED, Looks.PLAUSIBLE, Looks.PLAUSIBLE, Looks.NOTHING))
        payload_type = rng.choice((96, 96, 96, 8))
        data = number.to_bytes(4, "big") * rng.choice((1, 300, 6000))
        verdict = oracle.receive(now, source, ssrc, payload_type, place, looks, data)
        connection = source[2] if len(source) == 3 else 0
        assert verdict.value == native.receive(
            now, source[0], source[1], connection, ssrc, payload_type, place, int(looks), data
        )
        assert native.state == (
            _text(oracle.source),
            oracle.ssrc,
            oracle.sequence,
            oracle.last_accepted,
            oracle.by_grace,
            oracle.foreign,
        )
        if verdict.value not in ("drop", "hold", "accept"):
            assert native.take_held() == oracle.take_held()
        if rng.random() < 0.1:
            assert native.take_conflict() == oracle.take_conflict()
            assert native.take_mismatch() == oracle.take_mismatch()


@FAST
@given(st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 32) - 1))
def test_ssrc_variants(value: int, other: int) -> None:
    swapped = int.from_bytes(value.to_bytes(4, "big"), "little")
    as_hex = int(f"{value:010d}", 16) & 0xFFFFFFFF
    for seen in (value, other, swapped, as_hex, 0):
        assert codecs.ssrc_variant(seen, [value]) == ssrc_variant(seen, frozenset({value}))


@FAST
@given(
    st.lists(
        st.one_of(
            st.ip_addresses().map(str),
            st.builds(
                lambda address, prefix: f"{address}/{prefix}", st.ip_addresses(v=4), st.integers(0, 33)
            ),
            st.builds(
                lambda address, prefix: f"{address}/{prefix}", st.ip_addresses(v=6), st.integers(0, 129)
            ),
            st.builds(lambda address, mask: f"{address}/{mask}", st.ip_addresses(v=4), st.ip_addresses(v=4)),
            st.builds(
                lambda address, mask: f"{address}/{mask}",
                st.ip_addresses(v=4),
                st.sampled_from(
                    ["255.0.0.0", "0.0.0.255", "255.255.255.255", "00", "128.0.0.0", "08", "+8", " 8"]
                ),
            ),
            st.sampled_from(["10.0.0.0/8", "name.example", "", "10.1.2.3/", "/8", "1.2.3"]),
        ),
        max_size=5,
    ),
    st.one_of(st.ip_addresses().map(str), st.sampled_from(["10.1.2.3", "::ffff:10.1.2.3"])),
)
@example(["0.0.0.0/0"], "::ffff:0:0")
@example(["0.0.0.0"], "::ffff:0:0")  # noqa: S104 - compared, not bound
@example(["::ffff:0:0", "::ffff:1.2.3.4"], "::ffff:1.2.3.4")
@example(["::ffff:1.2.3.4"], "1.2.3.4")
def test_host_sets(texts: list[str], host: str) -> None:
    assert codecs.host_set_contains(texts, host) == (host in HostSet(frozenset(texts)))
