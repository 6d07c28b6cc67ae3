"""How long it takes to make a tenant, from the first to the last of many, and what each costs.

    python -m benchmarks.provisioning --tenants 100

Runs on servers of its own, which are gone afterwards.
"""

import argparse
import os
import statistics
import time

import django


def main() -> None:
    """Provision many tenants, print the times by blocks of ten, then delete some."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tenants", type=int, default=100)
    count = parser.parse_args().tenants

    from tests.servers import start_test_servers

    os.environ.update(start_test_servers())
    os.environ["DJANGO_SETTINGS_MODULE"] = "tenantry.settings"
    django.setup()
    _measure(count)


def _measure(count: int) -> None:
    from tenants import provisioning, services

    started = time.perf_counter()
    for step in provisioning.upgrade():
        print(f"{time.perf_counter() - started:7.2f} s  {step}")
    times_s: list[float] = []
    made = []
    for number in range(count):
        started = time.perf_counter()
        one = services.provision_tenant(
            tenant_id=f"bench-{number}", name="Bench", admin_email=f"a{number}@bench.test", actor="benchmark"
        )
        times_s.append(time.perf_counter() - started)
        made.append(one.tenant)
    size = max(10, count // 10)
    for begin in range(0, count, size):
        block = times_s[begin : begin + size]
        print(f"tenants from {begin + 1:4}: median {statistics.median(block):.3f} s  max {max(block):.3f} s")
    print(f"all: median {statistics.median(times_s):.3f} s  max {max(times_s):.3f} s")
    print(f"tables in a tenant's schema: {_tables(made[0].schema_name)}")
    started = time.perf_counter()
    list(provisioning.upgrade())
    print(f"an upgrade with nothing to do: {time.perf_counter() - started:.2f} s for {count} tenants")
    started = time.perf_counter()
    for tenant in made[:10]:
        services.delete_tenant(tenant=tenant, confirm=tenant.tenant_id, actor="benchmark")
    print(f"deleting: {(time.perf_counter() - started) / len(made[:10]):.3f} s a tenant")


def _tables(schema_name: str) -> int:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_tables WHERE schemaname = %s", [schema_name])
        return int(cursor.fetchone()[0])


if __name__ == "__main__":
    main()
