"""Filters of lists."""

from typing import Any

from django.contrib.admin import AllValuesFieldListFilter


class KnownValues(AllValuesFieldListFilter):
    """The values that a text field has, without the empty one, which would be a choice without words."""

    def __init__(self, field: Any, request: Any, params: Any, model: Any, model_admin: Any, field_path: str) -> None:
        super().__init__(field, request, params, model, model_admin, field_path)
        self.lookup_choices = self.lookup_choices.exclude(**{field.name: ""})
