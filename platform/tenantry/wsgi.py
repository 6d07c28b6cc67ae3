"""The WSGI entry point: `granian tenantry.wsgi:application`, or gunicorn's."""

import multiprocessing
import os
import signal

from django.core.wsgi import get_wsgi_application

from tenantry.stack.process import tie_to

# granian's workers outlive a granian that is killed, and keep its port; gunicorn's do not, and are no such children.
if (granian := multiprocessing.parent_process()) and granian.pid:
    tie_to(granian.pid, signal.SIGKILL)
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tenantry.settings")
application_in_django = get_wsgi_application()

from inference import preloading, warming  # noqa: E402  (apps must be loaded first)
from inference.shortcut import Shortcut  # noqa: E402
from tenants.addressing import TenantPaths  # noqa: E402

application = TenantPaths(Shortcut(application_in_django))
preloading.start()
warming.start()
