"""Form fields made from a trainer's schema, and what was written into them as its parameters."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from django import forms
from unfold import widgets

from runtimes.trainers import Trainer
from tenants.site.forms import ChoiceField, NumberField, SwitchField, TextField

NONE = ("", "-")
RANGE = re.compile(r"^(?P<low>[^\s,]+?)\s*\.\.\s*(?P<high>[^\s,]+)(?P<log>\s+log)?(\s+steps\s+(?P<steps>\d+))?$")
VALUE_CHARS = 1_000


class RealField(forms.FloatField):
    """A number."""

    widget = widgets.UnfoldAdminDecimalFieldWidget

    def widget_attrs(self, widget: forms.Widget) -> dict[str, Any]:
        # `min` would be the base of a browser's steps, and 0.001 above an exclusive 0 is as good as 0.0015
        return {"step": "any"}


class JsonWordField(forms.Field):
    """A JSON value, or a word where it is none; None where nothing was written."""

    widget = widgets.UnfoldAdminTextInputWidget

    def to_python(self, value: Any) -> Any:
        text = str(value or "").strip()
        if len(text) > VALUE_CHARS:
            raise forms.ValidationError(f"It has at most {VALUE_CHARS} characters.")
        return parsed_value(text) if text else None

    def prepare_value(self, value: Any) -> Any:
        return value if isinstance(value, str) or value is None else json.dumps(value)


def parsed_value(text: str) -> Any:
    """The JSON value that a text is, or the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def param_fields(trainer: type[Trainer]) -> Iterator[tuple[str, forms.Field]]:
    """A field for each parameter, by its name and in the order in which they were declared."""
    schema = trainer.Params.model_json_schema()
    for name, told in schema["properties"].items():
        kinds = [part for part in told.get("anyOf", [told]) if part.get("type") != "null"]
        is_nullable = len(kinds) < len(told.get("anyOf", [told]))
        common = {"label": name, "help_text": told.get("description", ""), "initial": told.get("default")}
        yield name, _field(kinds, is_nullable, common)


def _field(kinds: list[Mapping[str, Any]], is_nullable: bool, common: dict[str, Any]) -> forms.Field:
    kind = kinds[0] if len(kinds) == 1 else {}
    if values := kind.get("enum") or ([kind["const"]] if "const" in kind else []):
        choices = [*([NONE] if is_nullable else []), *((str(value), str(value)) for value in values)]
        return ChoiceField(choices=choices, required=False, **common | {"initial": common["initial"] or ""})
    match kind.get("type"):
        case "boolean":
            return SwitchField(required=False, **common)
        case "integer":
            return NumberField(required=False, **common)
        case "number":
            return RealField(required=False, **common)
        case "string":
            return TextField(required=False, max_length=VALUE_CHARS, **common)
    return JsonWordField(required=False, **common)


def params_of(trainer: type[Trainer], said: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The parameters in what was said; one that was left empty has its default, or none where it may have none."""
    given = {name: said.get(f"{prefix}{name}") for name in trainer.Params.model_fields}
    nullable = {name for name, told in trainer.Params.model_fields.items() if _takes_none(told.annotation)}
    return {
        name: None if value in (None, "") else value
        for name, value in given.items()
        if value not in (None, "") or name in nullable
    }


def _takes_none(annotation: Any) -> bool:
    return type(None) in getattr(annotation, "__args__", ())


def written_dimension(text: str) -> Any:
    """What was written of a parameter in a search: a list of values, a range as its JSON, or one value for all trials.

    `50, 100` are values, `2..12` and `0.001..0.3 log` are ranges, `200` is a value.
    """
    if found := RANGE.match(text.strip()):
        low, high = parsed_value(found["low"]), parsed_value(found["high"])
        steps = {"steps": int(found["steps"])} if found["steps"] else {}
        return {"low": low, "high": high, "log": bool(found["log"]), **steps}
    whole = parsed_value(f"[{text}]")
    values = whole if isinstance(whole, list) else [parsed_value(part.strip()) for part in text.split(",")]
    return values if len(values) > 1 else values[0] if values else None
