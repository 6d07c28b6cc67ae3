"""The whole HTTP surface: the operator's at the root of the main host, a tenant's below its address."""

from dataclasses import dataclass

from django.urls import URLPattern, URLResolver, include, path

from inference import api as inference_api
from tenantry import health
from training import api as training_api

Urls = list[URLPattern | URLResolver]

urlpatterns: Urls = [
    path("healthz", health.healthz),
    path("readyz", health.readyz),
]

tenant_urlpatterns: Urls = [
    path("api/v1/", include(inference_api.api_urlpatterns)),
    path("api/v1/", include(training_api.api_urlpatterns)),
]


@dataclass(frozen=True, eq=False)
class Surface:
    """A set of URLs that a request can be given as its `urlconf`."""

    urlpatterns: Urls


TENANT_SURFACE = Surface(tenant_urlpatterns)
