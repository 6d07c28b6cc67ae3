"""The whole HTTP surface: the operator's at the root of the main host, a tenant's below its address."""

from dataclasses import dataclass

from django.urls import URLPattern, URLResolver, path

from tenantry import health

Urls = list[URLPattern | URLResolver]

urlpatterns: Urls = [
    path("healthz", health.healthz),
    path("readyz", health.readyz),
]

tenant_urlpatterns: Urls = []


@dataclass(frozen=True, eq=False)
class Surface:
    """A set of URLs that a request can be given as its `urlconf`."""

    urlpatterns: Urls


TENANT_SURFACE = Surface(tenant_urlpatterns)
