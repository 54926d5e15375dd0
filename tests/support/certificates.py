"""An authority of a test and certificates that it signs, made by openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files."""

    cert: Path
    key: Path


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def authority(directory: Path, name: str = "authority") -> Certificate:
    """One that nobody trusts."""
    made = Certificate(directory / f"{name}.pem", directory / f"{name}.key")
    _openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", f"/CN={name}", "-keyout", str(made.key), "-out", str(made.cert),
    )  # fmt: skip
    return made


def signed(directory: Path, by: Certificate, *, names: str, name: str = "gateway") -> Certificate:
    """A certificate for `names`, as in ``IP:127.0.0.1,DNS:localhost``."""
    made = Certificate(directory / f"{name}.pem", directory / f"{name}.key")
    request, more = directory / f"{name}.csr", directory / f"{name}.ext"
    more.write_text(f"subjectAltName={names}\n")
    _openssl(
        "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-subj", f"/CN={name}", "-keyout", str(made.key), "-out", str(request),
    )  # fmt: skip
    _openssl(
        "x509", "-req", "-in", str(request), "-CA", str(by.cert), "-CAkey", str(by.key), "-CAcreateserial",
        "-days", "2", "-extfile", str(more), "-out", str(made.cert),
    )  # fmt: skip
    return made
