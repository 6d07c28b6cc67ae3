"""Notifications of every change of what a request is routed by (`inference.routing`), named by the tenant's schema."""

from django.db import migrations

TABLES = ("registeredmodel", "modelversion", "alias", "activation", "deployment")


def notifying(table):
    return migrations.RunSQL(
        f"CREATE TRIGGER tenantry_changed AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW "
        "EXECUTE FUNCTION public.tenantry_changed('registry')",
        f"DROP TRIGGER tenantry_changed ON {table}",
    )


class Migration(migrations.Migration):
    dependencies = [("models_registry", "0001_initial"), ("tenants", "0002_notify")]

    operations = [notifying(f"models_registry_{name}") for name in TABLES]
