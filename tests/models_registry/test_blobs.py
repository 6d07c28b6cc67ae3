"""Storing files once, and giving back only what was stored."""

import io

import pytest

from models_registry.blobs import IncomingFile, open_file, store_bundle
from tenants.scope import tenant_scope

pytestmark = pytest.mark.django_db


def test_smoke(acme):
    for alias in ("filesystem", "database"):
        acme.storage_alias = alias
        with tenant_scope(acme):
            b = store_bundle([IncomingFile("a/x.bin", io.BytesIO(b"hello" * 1000000)), IncomingFile("e", io.BytesIO())])
            for f in b.files.select_related("blob"):
                with open_file(f) as s:
                    assert len(s.read()) == f.blob.size_bytes
            import os

            from models_registry.packs import open_pack

            fd = open_pack(b)
            from runtimes.bundle import Bundle

            assert Bundle(fd).paths() == ("a/x.bin", "e")
            os.close(fd)
