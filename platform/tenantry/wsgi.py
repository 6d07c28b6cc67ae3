"""The WSGI entry point: `granian tenantry.wsgi:application`, or gunicorn's."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tenantry.settings")
application_in_django = get_wsgi_application()

from tenants.addressing import TenantPaths  # noqa: E402  (apps must be loaded first)

application = TenantPaths(application_in_django)
