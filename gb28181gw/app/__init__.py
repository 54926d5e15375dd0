"""The composition root: the only package that knows everybody. `gateway` makes the parts, `metrics` reads them."""

from gb28181gw.app.gateway import Gateway, run

__all__ = ["Gateway", "run"]
