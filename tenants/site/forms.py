"""What admin forms are made of: Django's fields in unfold's look, JSON, and several files at once."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from django import forms
from unfold import widgets

from common.errors import PlatformError

REASON_CHARS = 500


class TextField(forms.CharField):
    """A line of text."""

    widget = widgets.UnfoldAdminTextInputWidget


class LongTextField(forms.CharField):
    """Some lines of text."""

    widget = widgets.UnfoldAdminTextareaWidget


class EmailField(forms.EmailField):
    """An email address."""

    widget = widgets.UnfoldAdminEmailInputWidget


class NumberField(forms.IntegerField):
    """A whole number."""

    widget = widgets.UnfoldAdminIntegerFieldWidget


class ChoiceField(forms.ChoiceField):
    """One of some values."""

    widget = widgets.UnfoldAdminSelectWidget


class ChoicesField(forms.MultipleChoiceField):
    """Some of some values."""

    widget = widgets.UnfoldAdminCheckboxSelectMultipleWidget


class SwitchField(forms.BooleanField):
    """Yes or no."""

    widget = widgets.UnfoldBooleanSwitchWidget


class JsonField(forms.JSONField):
    """A JSON value; None where nothing was written."""

    widget = widgets.UnfoldAdminTextareaWidget

    def __init__(self, *, example: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.widget.attrs.update({"rows": 3, "placeholder": example, "spellcheck": "false"})

    def prepare_value(self, value: Any) -> Any:
        return "" if value is None else super().prepare_value(value)


class FilesInput(forms.FileInput):
    """An input for several files, or for a folder."""

    allow_multiple_selected = True


class FilesField(forms.FileField):
    """Several uploaded files."""

    widget = FilesInput

    def clean(self, data: Any, initial: Any = None) -> list[Any]:
        one = super().clean
        if not data:
            one(None, initial)  # says that it is required, if it is
            return []
        return [one(file, initial) for file in data]


class PageForm(forms.Form):
    """A form that can show why a service refused what was written into it.

    rare: fields that most people leave alone; they are folded away. suggestions: what may be chosen in a text field.
    """

    rare: ClassVar[Sequence[str]] = ()
    suggestions: Mapping[str, Sequence[str]] = {}

    def common_fields(self) -> list[forms.BoundField]:
        """The fields in plain sight."""
        return [field for field in self if field.name not in self.rare]

    def rare_fields(self) -> list[forms.BoundField]:
        """The fields that are folded away."""
        return [field for field in self if field.name in self.rare]

    def show(self, error: PlatformError) -> None:
        """Show the sentence above the form, and each fault at its field where the form has it."""
        self.add_error(None, error.message)
        for path, fault in error.fields.items():
            at = [part for part in (path, *path.split(".")) if part in self.fields]
            self.add_error(*(at[-1], fault) if at else (None, f"{path}: {fault}"))


class ReasonForm(PageForm):
    """Asks why."""

    reason = TextField(
        required=False,
        max_length=REASON_CHARS,
        help_text="Kept with the change, for those who ask later why it was made.",
    )
