"""Requests that bring a file."""

from typing import Any

from django.http import HttpRequest, QueryDict
from django.utils.datastructures import MultiValueDict
from rest_framework.request import Request
from rest_framework.views import APIView

from models_registry.spooling import SpoolingUploadHandler


class Uploading(APIView):
    """A view whose POST brings a file: it waits on the local disk without a name once it is read."""

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        # A session's CSRF check looks for its token in request.POST before it looks into the header, which would read
        # the body before anybody was let in.
        if request.method == "POST":
            request.upload_handlers = [SpoolingUploadHandler(request)]
            request._post, request._files = QueryDict(), MultiValueDict()  # type: ignore[attr-defined]
        return super().initialize_request(request, *args, **kwargs)
