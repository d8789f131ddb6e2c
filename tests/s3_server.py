"""An S3 server on loopback, made of moto: `with serving() as server: open_files(server.uri())`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from pyarrow.fs import S3FileSystem

BUCKET = "bucket"
ENVIRONMENT = {  # a key that opens nothing, and no question to the cloud who this machine is
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "nothing",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@dataclass
class Server:
    """What is stored outlives `stop` and `start`."""

    port: int = 0
    requests: list[str] = field(default_factory=list)  # the request lines so far
    _running: Any = None

    @property
    def query(self) -> str:
        return f"endpoint_override=127.0.0.1:{self.port}&scheme=http&region=us-east-1"

    def uri(self, path: str = "results", bucket: str = BUCKET) -> str:
        return f"s3://{bucket}/{path}?{self.query}"

    def client(self) -> S3FileSystem:
        """What the test itself looks at the bucket with; unlike ours it may make and delete buckets."""
        return S3FileSystem(
            endpoint_override=f"127.0.0.1:{self.port}", scheme="http", region="us-east-1",
            allow_bucket_creation=True, allow_bucket_deletion=True,
        )  # fmt: skip

    def start(self, port: int = 0) -> None:
        from moto.server import ThreadedMotoServer

        self._running = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
        self._running.start()
        self.port = int(self._running.get_host_and_port()[1])

    def stop(self) -> None:
        self._running.stop()


@contextmanager
def serving() -> Iterator[Server]:
    """A server with one empty bucket; the environment holds a key for it, also for child processes."""
    from moto.s3.models import s3_backends
    from werkzeug.serving import WSGIRequestHandler

    server = Server()

    def note(handler: WSGIRequestHandler, *_: object) -> None:
        server.requests.append(handler.requestline.removesuffix(" HTTP/1.1"))

    with mock.patch.dict(os.environ, ENVIRONMENT), mock.patch.object(WSGIRequestHandler, "log_request", note):
        server.start()
        try:
            s3_backends.reset()
            server.client().create_dir(BUCKET)
            yield server
        finally:
            server.stop()
