"""Serves the metrics on an address of their own."""

import signal
import sys
from collections.abc import Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection
from prometheus_client import make_wsgi_app

from tenantry.metrics import REGISTRY


class Quiet(WSGIRequestHandler):
    """Writes no line a scrape."""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Command(BaseCommand):
    help = "Serve /metrics without a token on an address that only Prometheus reaches."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--listen", default="127.0.0.1:9464", metavar="HOST:PORT")

    def handle(self, *args: Any, **options: Any) -> None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        host, _, port = options["listen"].rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535:
            raise CommandError("--listen takes HOST:PORT, such as 127.0.0.1:9464.")
        try:
            server = make_server(host, int(port), serve, handler_class=Quiet)
        except OSError as error:
            raise CommandError(f"{options['listen']} cannot be listened on: {error.strerror}.") from error
        self.stdout.write(f"metrics at http://{host}:{server.server_port}/metrics")
        self.stdout.flush()
        server.serve_forever()


METRICS = make_wsgi_app(REGISTRY)


def serve(environ: Any, start_response: Any) -> Iterable[bytes]:
    """One scrape, on a database connection of its own: between two it would only grow stale."""
    try:
        body: Iterable[bytes] = METRICS(environ, start_response)
    finally:
        connection.close()
    return body
