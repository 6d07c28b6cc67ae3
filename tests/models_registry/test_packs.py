"""The machine's cache of packed bundles."""

import os
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.core.files.storage import storages

from common.errors import Unavailable
from models_registry import packs
from models_registry.blobs import name_of
from models_registry.models import Bundle
from models_registry.packs import drop_tenants_except, open_pack
from runtimes import bundle as packed
from tenants.scope import tenant_scope

KIB = 1 << 10


@contextmanager
def opened(bundle: Bundle) -> Iterator[packed.Bundle]:
    descriptor = open_pack(bundle)
    try:
        yield packed.Bundle(descriptor)
    finally:
        os.close(descriptor)


def cached(settings: Any) -> set[str]:
    """The digests of the bundles in the cache."""
    return {path.stem for path in Path(settings.BLOB_CACHE_ROOT).rglob("*.pack")}


def test_a_pack_holds_the_bundles_files(tenant: Any, store: Callable[..., Bundle]) -> None:
    files = {"MLmodel": b"flavors", "data/model.pkl": bytes(3000), "empty": b""}

    with opened(store(**files)) as pack:
        assert {path: pack.read(path) for path in pack.paths()} == files


def test_a_pack_cannot_be_written_through_its_descriptor(here: Any, store: Callable[..., Bundle]) -> None:
    descriptor = open_pack(store(a=b"1"))

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(descriptor, b"x")
    os.close(descriptor)


def test_a_second_opening_does_not_ask_the_storage(here: Any, settings: Any, store: Callable[..., Bundle]) -> None:
    bundle = store(a=b"1")
    with opened(bundle):
        pass
    storages["filesystem"].delete(name_of(bundle.files.get().blob))

    with opened(bundle) as pack:
        assert pack.read("a") == b"1"


def test_wrong_bytes_make_no_pack(here: Any, settings: Any, store: Callable[..., Bundle]) -> None:
    bundle = store(a=b"12345", b=b"6")
    Path(settings.MODELS_ROOT, name_of(bundle.files.get(path="a").blob)).write_bytes(b"12x45")

    with pytest.raises(Unavailable) as caught:
        open_pack(bundle)

    assert caught.value.code == "corrupt_file"
    assert not [path for path in Path(settings.BLOB_CACHE_ROOT).rglob("*") if path.suffix in (".pack", ".part")]


def test_the_least_used_packs_make_room(here: Any, settings: Any, store: Callable[..., Bundle]) -> None:
    settings.BLOB_CACHE_BYTES = 250 * KIB
    old, used, new = (store(a=os.urandom(100 * KIB)) for _ in range(3))
    for moment, bundle in enumerate((old, used, old, used)):
        with opened(bundle) as pack:
            os.utime(pack._fd, (moment, moment))

    with opened(new):
        pass

    assert cached(settings) == {used.digest, new.digest}


def test_a_pack_in_use_survives_its_removal(here: Any, settings: Any, store: Callable[..., Bundle]) -> None:
    settings.BLOB_CACHE_BYTES = 150 * KIB
    first, second = store(a=b"1" * 100 * KIB), store(a=b"2" * 100 * KIB)

    with opened(first) as pack:
        with opened(second):
            assert cached(settings) == {second.digest}
        assert pack.read("a") == b"1" * 100 * KIB


def test_a_bundle_over_the_bound_is_refused_in_words(here: Any, settings: Any, store: Callable[..., Bundle]) -> None:
    settings.BLOB_CACHE_BYTES = KIB

    with pytest.raises(Unavailable, match="BLOB_CACHE_BYTES"):
        open_pack(store(a=bytes(2 * KIB)))


def test_a_full_disk_is_said_in_words(
    here: Any, settings: Any, store: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: int) -> None:
        raise OSError(28, "No space left on device")

    bundle = store(a=b"1")
    monkeypatch.setattr(os, "posix_fallocate", full)

    with pytest.raises(Unavailable, match="is full") as caught:
        open_pack(bundle)

    assert caught.value.code == "disk_full"


def test_a_nearly_full_disk_is_relieved_of_old_packs(
    here: Any, settings: Any, store: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage(NamedTuple):
        free: int

    old, new = store(a=b"1" * KIB), store(a=b"2" * KIB)
    with opened(old):
        pass
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(packs.SPARE_BYTES))

    with opened(new):
        assert cached(settings) == {new.digest}


def test_a_disk_that_is_full_of_other_things_costs_no_pack(
    here: Any, settings: Any, store: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage(NamedTuple):
        free: int

    old, new = store(a=b"1" * KIB), store(a=b"2" * 100 * KIB)
    with opened(old):
        pass
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(packs.SPARE_BYTES))

    with pytest.raises(Unavailable, match="is full"):
        open_pack(new)

    assert cached(settings) == {old.digest}


def test_what_a_killed_process_left_is_overwritten(here: Any, settings: Any, store: Callable[..., Bundle]) -> None:
    bundle = store(a=b"1")
    left = Path(settings.BLOB_CACHE_ROOT, here.uuid.hex, f"{bundle.digest}.part")
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half" * 1000)

    with opened(bundle) as pack:
        assert pack.read("a") == b"1"
    assert not left.exists()


def test_the_packs_of_a_tenant_that_is_gone_go_too(
    acme: Any, globex: Any, settings: Any, store: Callable[..., Bundle]
) -> None:
    for tenant in (acme, globex):
        with tenant_scope(tenant), opened(store(a=tenant.tenant_id.encode())):
            pass

    assert drop_tenants_except({acme.uuid.hex}) == 1
    assert [path.name for path in Path(settings.BLOB_CACHE_ROOT).glob("[0-9a-f]*")] == [acme.uuid.hex]


OPENER = """
    import os, sys
    import django
    django.setup()
    from models_registry.models import Bundle
    from models_registry.packs import open_pack
    from runtimes import bundle as packed
    from tenants.models import Tenant
    from tenants.scope import tenant_scope

    with tenant_scope(Tenant.objects.get(tenant_id=sys.argv[1])):
        bundle = Bundle.objects.get()
        print("ready", flush=True)
        sys.stdin.readline()
        descriptor = open_pack(bundle)
        assert len(packed.Bundle(descriptor).read("a")) == 20 << 20
        print(os.fstat(descriptor).st_ino, flush=True)
"""


def test_processes_and_threads_at_once_share_one_pack(
    committed_tenant: Any, settings: Any, store: Callable[..., Bundle]
) -> None:
    with tenant_scope(committed_tenant):
        bundle = store(a=bytes(20 << 20))
    environment = os.environ | {"MODELS_ROOT": settings.MODELS_ROOT, "BLOB_CACHE_ROOT": settings.BLOB_CACHE_ROOT}
    argv = [sys.executable, "-c", textwrap.dedent(OPENER), committed_tenant.tenant_id]
    processes = [
        subprocess.Popen(argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.stdout.readline() for process in processes if process.stdout] == ["ready\n"] * 2
    inodes: list[int] = []
    threads = [threading.Thread(target=open_in_thread, args=(committed_tenant, bundle, inodes)) for _ in range(3)]

    for thread in threads:
        thread.start()
    answers = [process.communicate("\n", timeout=60)[0] for process in processes]
    for thread in threads:
        thread.join()

    assert len({*inodes, *map(int, answers)}) == 1
    assert len(inodes) == 3


def open_in_thread(tenant: Any, bundle: Bundle, inodes: list[int]) -> None:
    from django.db import connection

    with tenant_scope(tenant):
        descriptor = open_pack(bundle)
    inodes.append(os.fstat(descriptor).st_ino)
    os.close(descriptor)
    connection.close()
