"""`gb28181gw secrets`: what the first start made."""

from __future__ import annotations

import sys

import typer

from gb28181gw.cli.common import ConfigOption, JsonOption, fail, settings_or_exit
from gb28181gw.errors import GatewayError


def secrets(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show the SIP password for the devices and the admin key."""
    from gb28181gw.access.secrets import read_secrets

    settings = settings_or_exit(config)
    try:
        made = read_secrets(settings.secrets_path)
    except FileNotFoundError:
        print(f"There are no secrets in {settings.data_dir} yet.", file=sys.stderr)
        print(
            "The first 'gb28181gw serve' makes them; if it ran already, use its --config and working directory.",
            file=sys.stderr,
        )
        raise typer.Exit(1) from None
    except GatewayError as error:
        fail(error)
    password = effective_password(settings.sip.password, made.sip_password)
    if as_json:
        import json

        print(json.dumps({"sip_password": password, "admin_key": made.admin_key}))
        return
    note = "" if password else 'none is accepted ([sip] password is "-")'
    print(f"SIP password  {password or note}")
    print(f"Admin key     {made.admin_key}")


def effective_password(configured: str, made: str) -> str:
    """The shared password in force: the configured one, else the made one; empty for "-"."""
    if configured == "-":
        return ""
    return configured or made
