"""GB/T 28181 without I/O: ids, character sets, MANSCDP, SDP, times and the per-device dialect.

Readers are lenient and name each concession by a `Quirk`; writers are strict. Nothing here reads a clock,
opens a socket or knows a device: bytes and values in, values and bytes out.
"""
