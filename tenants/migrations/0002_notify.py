"""Notifications of every change of what processes remember of the shared schema (`tenants.tables`)."""

from django.db import migrations

# The arguments of a trigger: the kind, then the column whose value names what is out of date; without one, the name of
# the schema does.
FUNCTION = """
CREATE FUNCTION public.tenantry_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_NARGS = 1 THEN
        PERFORM pg_notify('tenantry_changed', TG_ARGV[0] || ' ' || TG_TABLE_SCHEMA);
    ELSE
        IF TG_OP <> 'INSERT' THEN
            PERFORM pg_notify('tenantry_changed', TG_ARGV[0] || ' ' || (to_jsonb(OLD) ->> TG_ARGV[1]));
        END IF;
        IF TG_OP <> 'DELETE' THEN
            PERFORM pg_notify('tenantry_changed', TG_ARGV[0] || ' ' || (to_jsonb(NEW) ->> TG_ARGV[1]));
        END IF;
    END IF;
    RETURN NULL;
END
$$
"""
TRIGGER = """
CREATE TRIGGER tenantry_changed AFTER {events} ON {table} FOR EACH ROW {condition}
EXECUTE FUNCTION public.tenantry_changed({arguments})
"""
NOT_ONLY_USED = "WHEN (to_jsonb(OLD) - 'last_used_at' IS DISTINCT FROM to_jsonb(NEW) - 'last_used_at')"


def notifying(table, arguments):
    sql = TRIGGER.format(events="INSERT OR UPDATE OR DELETE", table=table, condition="", arguments=arguments)
    return migrations.RunSQL(sql, f"DROP TRIGGER tenantry_changed ON {table}")


class Migration(migrations.Migration):
    dependencies = [("tenants", "0001_initial")]

    operations = [
        migrations.RunSQL(FUNCTION, "DROP FUNCTION public.tenantry_changed()"),
        notifying("tenants_tenant", "'tenant', 'uuid'"),
        notifying("tenants_domain", "'tenant', 'tenant_id'"),
        notifying("tenants_apitoken_tenants", "'token', 'apitoken_id'"),
        # That a token was used is noted once a minute, and changes nothing of what it opens.
        migrations.RunSQL(
            TRIGGER.format(
                events="INSERT OR DELETE", table="tenants_apitoken", condition="", arguments="'token', 'uuid'"
            ),
            "DROP TRIGGER tenantry_changed ON tenants_apitoken",
        ),
        migrations.RunSQL(
            TRIGGER.replace("TRIGGER tenantry_changed", "TRIGGER tenantry_updated").format(
                events="UPDATE", table="tenants_apitoken", condition=NOT_ONLY_USED, arguments="'token', 'uuid'"
            ),
            "DROP TRIGGER tenantry_updated ON tenants_apitoken",
        ),
    ]
