"""Metrics read plain counters, and no label grows with the number of devices."""

from __future__ import annotations

import pytest

from gb28181gw.observability.metrics import FORBIDDEN_LABELS, Histogram, Metrics


def test_values_are_read_when_asked() -> None:
    metrics = Metrics(process=False)
    numbers = {"packets": 1.0, "ports": 2.0}
    metrics.counter("packets_total", "Packets.", lambda: numbers["packets"])
    metrics.gauge("ports_used", "Ports.", lambda: numbers["ports"])
    metrics.counters("sip", "Messages.", ("method", "status"), lambda: {("REGISTER", "200"): 3})
    metrics.gauges("streams", "Streams.", ("state",), lambda: {("running",): 4})
    numbers["packets"] = 7.0
    text = metrics.render().decode()
    assert "gb28181gw_packets_total 7.0" in text
    assert "# HELP gb28181gw_packets_total Packets." in text
    assert "gb28181gw_ports_used 2.0" in text
    assert 'gb28181gw_sip_total{method="REGISTER",status="200"} 3.0' in text
    assert 'gb28181gw_streams{state="running"} 4.0' in text
    assert metrics.names() == (
        "gb28181gw_packets", "gb28181gw_ports_used", "gb28181gw_sip", "gb28181gw_streams",
    )  # fmt: skip


def test_histograms_are_cumulative() -> None:
    histogram = Histogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 3.0):
        histogram.observe(value)
    metrics = Metrics(process=False)
    metrics.histograms("first_frame_seconds", "Time.", ("transport",), lambda: {("udp",): histogram})
    text = metrics.render().decode()
    assert 'gb28181gw_first_frame_seconds_bucket{le="0.1",transport="udp"} 2.0' in text
    assert 'gb28181gw_first_frame_seconds_bucket{le="1.0",transport="udp"} 3.0' in text
    assert 'gb28181gw_first_frame_seconds_bucket{le="+Inf",transport="udp"} 4.0' in text
    assert 'gb28181gw_first_frame_seconds_sum{transport="udp"} 3.65' in text
    assert histogram.count == 4


@pytest.mark.parametrize("label", sorted(FORBIDDEN_LABELS))
def test_o04_no_label_tells_devices_or_peers_apart(label: str) -> None:
    with pytest.raises(ValueError, match=label):
        Metrics(process=False).counters("x", "X.", ("reason", label), dict)


def test_a_name_is_there_once() -> None:
    metrics = Metrics(process=False)
    metrics.counter("x_total", "X.", lambda: 1)
    with pytest.raises(ValueError, match="gb28181gw_x"):
        metrics.gauge("x", "X.", lambda: 1)


def test_the_process_is_measured_too() -> None:
    text = Metrics().render().decode()
    assert "process_resident_memory_bytes" in text
    assert "process_open_fds" in text
