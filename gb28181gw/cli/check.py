"""`gb28181gw check`: is the configuration right and the host ready?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gb28181gw.cli.common import ConfigOption, JsonOption, sentences
from gb28181gw.cli.host import (
    Finding,
    Level,
    check_certificate,
    check_clock,
    check_data_dir,
    check_database,
    check_files,
    check_listeners,
    check_media_ports,
    check_offloads,
    check_plane,
    check_socket_buffers,
    check_store,
    check_transcoding,
)
from gb28181gw.errors import GatewayError

if TYPE_CHECKING:
    from gb28181gw.settings import Settings


def check(
    deep: Annotated[
        bool, typer.Option("--deep", help="Also look at every media port and at the whole database.")
    ] = False,
    defaults: Annotated[
        bool, typer.Option("--defaults", help="Print the annotated default configuration and end.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the configuration and this host. Exit status 1 when the gateway would not run well."""
    if defaults:
        from gb28181gw.settings import default_toml

        print(default_toml(), end="")
        return
    findings = list(examine(config, deep=deep))
    failed = any(finding.level is Level.ERROR for finding in findings)
    if as_json:
        import json

        rows = [{"level": f.level.value, "name": f.name, "detail": f.detail} for f in findings]
        print(json.dumps({"ok": not failed, "findings": rows}, ensure_ascii=False, indent=2))
    else:
        for finding in findings:
            print(f"{finding.level.value:<8} {finding.name:<18} {finding.detail}")
    if failed:
        raise typer.Exit(1)


def _check_dialects(data_dir: Path) -> list[Finding]:
    """The dialect files of the operator: the gateway does not start with a wrong one."""
    from gb28181gw.dialect_files import load_dialects
    from gb28181gw.settings import SettingsError

    try:
        found = load_dialects(data_dir)
    except SettingsError as error:
        return [Finding(level=Level.ERROR, name="dialects", detail=line) for line in error.problems]
    return [Finding(level=Level.OK, name="dialects", detail=f"{len(found)} dialect files can be used.")]


def examine(config: Path | None, *, deep: bool) -> list[Finding]:
    """All findings; only those about the configuration when that cannot be used."""
    from gb28181gw.settings import load_settings

    try:
        settings = load_settings(config)
    except GatewayError as error:
        return [
            Finding(level=Level.ERROR, name="configuration", detail=line) for line in sentences(error)[:-1]
        ]
    findings = [Finding(level=Level.WARNING, name=key, detail=text) for key, text in settings.warnings()]
    findings += _check_dialects(settings.data_dir)
    running = own_instance(settings)
    if running:
        findings.append(
            Finding(level=Level.OK, name="gateway", detail=f"It runs with this configuration: {running}.")
        )
    findings += check_listeners(settings, running=bool(running))
    findings += check_certificate(settings)
    findings += check_media_ports(settings, running=bool(running), deep=deep)
    findings += check_data_dir(settings)
    findings += check_plane(settings)
    findings += check_transcoding(settings)
    findings += check_store(settings)
    findings += check_socket_buffers()
    findings += check_offloads()
    findings += check_files()
    findings += check_clock(settings)
    if deep:
        findings += check_database(settings)
    return findings


def own_instance(settings: Settings) -> str:
    """The state of the gateway that runs with these settings and this data_dir; empty: none does.

    Its key is what makes it ours: a gateway of another data_dir does not know it.
    """
    from gb28181gw.cli.running import NotRunningError, running_gateway

    gateway = running_gateway(settings)
    try:
        if gateway.get_json("/api/v1/openapi.json")["info"]["title"] != "gb28181gw":
            return ""
    except (NotRunningError, GatewayError, ValueError, LookupError, TypeError):
        return ""
    try:
        return str(gateway.get_json("/readyz")["status"])
    except (NotRunningError, GatewayError, ValueError, LookupError, TypeError):
        # While it starts or stops /readyz answers 503.
        return "not ready"
