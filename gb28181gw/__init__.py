"""gb28181gw: a GB/T 28181 gateway. See docs/concepts/architecture.md for the way through the code."""

__version__ = "0.1.0"
