"""`gb28181gw version`."""

from __future__ import annotations

from gb28181gw.cli.common import JsonOption


def version(as_json: JsonOption = False) -> None:
    """Print the versions of the gateway and of what it runs on."""
    import json
    import platform

    from gb28181gw import __version__

    if as_json:
        print(
            json.dumps(
                {"gb28181gw": __version__, "python": platform.python_version(), "host": platform.platform()}
            )
        )
    else:
        print(f"gb28181gw {__version__} (Python {platform.python_version()}, {platform.platform()})")
