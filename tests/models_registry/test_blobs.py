"""Files kept once, given back only as they were stored, and collected when nothing names them."""

import io
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.files import File
from django.core.files.storage import storages
from django.db import connection, transaction
from django.utils import timezone

from common.errors import Invalid, Unavailable
from models_registry import blobs
from models_registry.blobs import CorruptFile, IncomingFile, name_of, open_file, store_bundle, sweep, used_bytes
from models_registry.models import Blob, BlobChunk, Bundle
from tenants.scope import tenant_scope

MIB = 1 << 20


def read(bundle: Bundle) -> dict[str, bytes]:
    """Every file of a bundle, verified."""
    found = {}
    for file in bundle.files.select_related("blob"):
        with open_file(file) as source:
            found[file.path] = source.read()
    return found


def age(**by: int) -> None:
    """Have every blob untouched for this long, more than the collector waits by default."""
    Blob.objects.update(touched_at=timezone.now() - timedelta(**(by or {"hours": 2})))


def corrupt(blob: Blob) -> None:
    """Change one byte of a stored blob, behind the back of the registry."""
    storage = storages[blob.storage_alias]
    with storage.open(name_of(blob)) as file:
        content = bytearray(file.read())
    content[len(content) // 2] ^= 1
    storage.delete(name_of(blob))
    storage.save(name_of(blob), File(io.BytesIO(bytes(content))))


def stored_names(tenant: Any) -> set[str]:
    """What the filesystem storage holds of a tenant."""
    return {path.name for path in Path(settings.MODELS_ROOT, tenant.tenant_id).rglob("*") if path.is_file()}


def test_a_bundle_comes_back_as_it_was_stored(tenant: Any, store: Callable[..., Bundle]) -> None:
    files = {"MLmodel": b"flavors: {}", "data/model.pkl": b"x" * (3 * MIB), "data/empty": b""}

    bundle = store(**files)

    assert read(bundle) == files
    assert bundle.size_bytes == sum(map(len, files.values()))


def test_the_same_bytes_are_kept_once(tenant: Any, store: Callable[..., Bundle]) -> None:
    store(a=b"same", b=b"same")
    store(c=b"same", d=b"other")

    assert Blob.objects.count() == 2


def test_the_same_files_are_the_same_bundle_in_any_order(here: Any, store: Callable[..., Bundle]) -> None:
    assert store(a=b"1", b=b"2") == store(b=b"2", a=b"1")
    assert store(a=b"1", b=b"2") != store(a=b"2", b=b"1")


def test_two_tenants_never_share_a_blob(acme: Any, globex: Any, store: Callable[..., Bundle]) -> None:
    with tenant_scope(acme):
        ours = store(a=b"same").files.get().blob
        our_name = name_of(ours)
    with tenant_scope(globex):
        theirs = store(a=b"same").files.get().blob
        their_name = name_of(theirs)

    assert our_name.startswith("acme/")
    assert their_name.startswith("globex/")
    assert ours.pk != theirs.pk


@pytest.mark.parametrize("size_bytes", [1, 5 * MIB])
def test_changed_bytes_are_an_error_before_the_last_piece_is_out(
    tenant: Any, store: Callable[..., Bundle], size_bytes: int
) -> None:
    file = store(a=b"x" * size_bytes).files.select_related("blob").get()
    corrupt(file.blob)

    received: list[bytes] = []
    with open_file(file) as source, pytest.raises(CorruptFile):
        received.extend(iter(lambda: source.read(MIB), b""))

    assert sum(map(len, received)) < size_bytes


def test_a_reader_that_goes_on_after_the_error_meets_it_again(here: Any, store: Callable[..., Bundle]) -> None:
    file = store(a=b"hello").files.select_related("blob").get()
    corrupt(file.blob)

    with open_file(file) as source:
        for _ in range(3):
            with pytest.raises(CorruptFile):
                source.read(1)


def test_a_cut_file_is_an_error(here: Any, store: Callable[..., Bundle]) -> None:
    file = store(a=b"hello").files.select_related("blob").get()
    Path(settings.MODELS_ROOT, name_of(file.blob)).write_bytes(b"hel")

    with open_file(file) as source, pytest.raises(CorruptFile):
        source.read()


def test_a_longer_file_is_an_error(here: Any, store: Callable[..., Bundle]) -> None:
    file = store(a=b"hello").files.select_related("blob").get()
    with Path(settings.MODELS_ROOT, name_of(file.blob)).open("ab") as out:
        out.write(b"!")

    with open_file(file) as source, pytest.raises(CorruptFile):
        source.read()


def test_a_missing_file_is_an_error(tenant: Any, alias: str, store: Callable[..., Bundle]) -> None:
    file = store(a=b"hello").files.select_related("blob").get()
    storages[alias].delete(name_of(file.blob))

    with pytest.raises(CorruptFile):
        open_file(file)


def test_files_stay_readable_when_the_tenant_moves_to_another_storage(here: Any, store: Callable[..., Bundle]) -> None:
    before = store(a=b"hello")
    here.storage_alias = "database"

    assert store(a=b"hello") == before
    assert read(store(b=b"hello")) == {"b": b"hello"}
    assert read(before) == {"a": b"hello"}


def test_no_file_is_no_bundle(here: Any) -> None:
    with pytest.raises(Invalid):
        store_bundle([])


def test_storing_inside_a_transaction_is_refused(here: Any, store: Callable[..., Bundle]) -> None:
    with transaction.atomic(), pytest.raises(RuntimeError, match="durable"):
        store(a=b"1")


def test_a_storage_that_fails_is_unavailable_and_leaves_nothing(
    here: Any, monkeypatch: pytest.MonkeyPatch, store: Callable[..., Bundle]
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)  # the disk's answer, which is not ours

    with pytest.raises(Unavailable, match="filesystem"):
        store(a=b"1")

    assert not Blob.objects.exists()
    assert not stored_names(here)


class TestSweep:
    """What the collector takes, and what it leaves."""

    def test_a_bundle_that_nothing_names_goes_with_its_bytes(
        self, tenant: Any, alias: str, store: Callable[..., Bundle]
    ) -> None:
        blob = store(a=b"1").files.get().blob
        age()

        assert sweep() == 1
        assert not Bundle.objects.exists()
        assert not storages[alias].exists(name_of(blob))
        assert not BlobChunk.objects.exists()

    def test_what_was_touched_lately_stays(self, here: Any, store: Callable[..., Bundle]) -> None:
        bundle = store(a=b"1")

        assert sweep() == 0
        assert read(bundle) == {"a": b"1"}

    def test_what_a_version_names_stays(self, here: Any, make_version: Callable[..., Any]) -> None:
        version = make_version(content=b"kept")
        age()

        assert sweep() == 0
        assert read(version.bundle) == {"model.pkl": b"kept"}

    def test_what_a_dataset_names_stays(self, here: Any, store: Callable[..., Bundle]) -> None:
        from training.models import Dataset, DatasetVersion

        bundle = store(**{"data.csv": b"a,b"})
        dataset = Dataset.objects.create(name="churn")
        DatasetVersion.objects.create(
            dataset=dataset, digest="0" * 64, bundle=bundle, format="csv", file_name="d.csv", size_bytes=3, row_count=0
        )
        age()

        assert sweep() == 0
        assert used_bytes() == 3

    def test_a_file_shared_with_a_kept_bundle_stays(
        self, here: Any, store: Callable[..., Bundle], make_version: Any
    ) -> None:
        version = make_version(content=b"shared")
        store(a=b"shared", b=b"alone")
        age()

        assert sweep() == 1
        assert read(version.bundle) == {"model.pkl": b"shared"}

    def test_a_bundle_used_again_is_not_taken_from_its_new_user(self, here: Any, store: Callable[..., Bundle]) -> None:
        store(a=b"1")
        age()
        again = store(a=b"1")

        assert sweep() == 0
        assert read(again) == {"a": b"1"}

    def test_what_an_upload_never_finished_goes(self, tenant: Any, alias: str) -> None:
        blob = Blob.objects.create(storage_alias=alias)
        storages[alias].save(name_of(blob), File(io.BytesIO(b"half")))
        age()

        assert sweep() == 1
        assert not storages[alias].exists(name_of(blob))

    def test_a_sweep_that_was_killed_is_finished_by_the_next(self, here: Any, store: Callable[..., Bundle]) -> None:
        store(a=b"1")
        age()
        doomed = blobs._doomed(timezone.now())
        Bundle.objects.all().delete()

        assert sweep() == 1
        assert not doomed
        assert not Blob.objects.exists()

    def test_an_upload_does_not_use_what_is_being_removed(self, here: Any, store: Callable[..., Bundle]) -> None:
        store(a=b"1")
        age()
        Bundle.objects.all().delete()
        [doomed] = blobs._doomed(timezone.now())

        fresh = store(a=b"1")
        sweep()

        assert fresh.files.get().blob_id != doomed.pk
        assert read(fresh) == {"a": b"1"}


KILLED_UPLOAD = """
    import os, sys
    import django
    django.setup()
    from models_registry.blobs import IncomingFile, store_bundle
    from tenants.models import Tenant
    from tenants.scope import tenant_scope

    class Dies:
        left = 5
        def read(self, size=-1):
            self.left -= 1
            if not self.left:
                print("storing", flush=True)
                os.kill(os.getpid(), 9)
            return bytes(1 << 20)

    tenant = Tenant.objects.get(tenant_id=sys.argv[1])
    tenant.storage_alias = sys.argv[2]
    with tenant_scope(tenant):
        store_bundle([IncomingFile("model.pkl", Dies())])
"""


@pytest.mark.parametrize("storage_alias", ["filesystem", "database"])
def test_a_killed_upload_shows_nothing_and_is_cleared_away(committed_tenant: Any, storage_alias: str) -> None:
    argv = [sys.executable, "-c", textwrap.dedent(KILLED_UPLOAD), committed_tenant.tenant_id, storage_alias]
    environment = os.environ | {"MODELS_ROOT": settings.MODELS_ROOT}
    killed = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert killed.stdout == "storing\n", killed.stderr

    with tenant_scope(committed_tenant):
        assert not Bundle.objects.exists()
        assert not Blob.objects.filter(is_stored=True).exists()
        age()
        assert sweep() == 1
        assert not stored_names(committed_tenant)
        assert not BlobChunk.objects.exists()


@pytest.mark.parametrize("storage_alias", ["filesystem", "database", "s3"])
def test_a_deleted_tenant_leaves_no_file(
    storage_alias: str, request: pytest.FixtureRequest, store: Callable[..., Bundle], committed_tenant: Any
) -> None:
    from tenants.models import Tenant
    from tenants.services import delete_tenant

    if storage_alias == "s3":
        request.getfixturevalue("s3")
    committed_tenant.storage_alias = storage_alias
    with tenant_scope(committed_tenant):
        store(a=b"1", b=b"2" * (2 * MIB))

    tenant = Tenant.objects.get(pk=committed_tenant.pk)
    delete_tenant(tenant=tenant, confirm=committed_tenant.tenant_id, actor="tests")

    assert not Path(settings.MODELS_ROOT, committed_tenant.tenant_id).exists()
    if storage_alias == "s3":
        assert not list(storages["s3"].bucket.objects.filter(Prefix=committed_tenant.tenant_id))  # type: ignore[attr-defined]
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [committed_tenant.schema_name])
        assert not cursor.fetchall()


def test_an_incoming_file_is_read_from_where_it_stands(here: Any) -> None:
    file = io.BytesIO(b"header-content")
    file.seek(7)

    assert read(store_bundle([IncomingFile("a", file)])) == {"a": b"content"}
