"""Serves the metrics on an address of their own."""

import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from prometheus_client import start_http_server

from tenantry.metrics import REGISTRY


class Command(BaseCommand):
    help = "Serve /metrics without a token on an address that only Prometheus reaches."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--listen", default="127.0.0.1:9464", metavar="HOST:PORT")

    def handle(self, *args: Any, **options: Any) -> None:
        host, _, port = options["listen"].rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535:
            raise CommandError("--listen takes HOST:PORT, such as 127.0.0.1:9464.")
        try:
            server, _ = start_http_server(int(port), host.strip("[]"), registry=REGISTRY)
        except OSError as error:
            raise CommandError(f"{options['listen']} cannot be listened on: {error.strerror}.") from error
        self.stdout.write(f"metrics at http://{host}:{server.server_port}/metrics")
        ended = threading.Event()
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda *_: ended.set())
        ended.wait()
        server.shutdown()
