"""Filters of lists."""

from typing import Any

from django.contrib.admin import AllValuesFieldListFilter, RelatedFieldListFilter
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest

MOST_CHOICES = 40  # nobody reads a longer list of them; the search finds the others


class KnownValues(AllValuesFieldListFilter):
    """The first values that a text field has, without the empty one, which would be a choice without words."""

    def __init__(self, field: Any, request: Any, params: Any, model: Any, model_admin: Any, field_path: str) -> None:
        super().__init__(field, request, params, model, model_admin, field_path)
        self.lookup_choices = self.lookup_choices.exclude(**{field.name: ""})[:MOST_CHOICES]


class FewRelated(RelatedFieldListFilter):
    """The objects that rows of the list belong to, where they are few; of many, the chosen one alone."""

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        related = field.remote_field.model._default_manager.all()
        used = model_admin.model._default_manager.order_by().values(field.name)
        found = list(related.filter(pk__in=used)[: MOST_CHOICES + 1])
        if len(found) > MOST_CHOICES:
            found = self._chosen(related)
        return [(str(one.pk), str(one)) for one in found]

    def _chosen(self, related: QuerySet[Any]) -> list[Any]:
        try:
            return list(related.filter(pk__in=self.lookup_val or ())[:1])
        except (ValidationError, ValueError):  # an address that somebody made up; the list itself refuses it
            return []

    def has_output(self) -> bool:
        return bool(self.lookup_val) or len(self.lookup_choices) > 1
