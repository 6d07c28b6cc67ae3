"""The form by which a version is uploaded."""

from typing import Any, ClassVar

from django import forms

from models_registry.blobs import IncomingFile
from models_registry.models import RegisteredModel
from tenants.site.forms import FilesField, FilesInput, JsonField, LongTextField, PageForm, TextField

MOST_SUGGESTED = 500
METADATA = (
    "description",
    "metrics",
    "params",
    "tags",
    "labels",
    "input_example",
    "signature",
    "architecture",
    "library_set",
)


class UploadForm(PageForm):
    """A version's files, and what its uploader says of it. The metadata's content is judged by the registry."""

    rare: ClassVar = ("folder", "params", "tags", "labels", "input_example", "signature", "architecture", "library_set")

    model = TextField(max_length=100, help_text="A model's name; a new name makes a new model.")
    file = FilesField(
        required=False,
        label="Files",
        help_text="One file, such as model.pkl, model.onnx or model.pth, or several that belong together.",
    )
    description = LongTextField(required=False, widget=forms.Textarea)
    metrics = JsonField(required=False, example='{"accuracy": 0.97}', help_text="As measured by you: numbers by name.")
    folder = FilesField(
        required=False,
        widget=FilesInput(attrs={"webkitdirectory": True, "data-paths": "paths"}),
        help_text="Instead of files: a folder, such as an MLflow model, with its subfolders.",
    )
    params = JsonField(required=False, example='{"max_depth": 6}')
    tags = JsonField(required=False, example='{"team": "growth"}')
    labels = JsonField(
        required=False, example='["stays", "leaves"]', help_text="The names of the classes, in their order."
    )
    input_example = JsonField(
        required=False, example="[[5.1, 3.5, 1.4, 0.2]]", help_text="Some rows that the model takes."
    )
    signature = JsonField(required=False, help_text="Only where inspection cannot find it.")
    architecture = JsonField(required=False, help_text="The layers of a torch state dict.")
    library_set = TextField(
        required=False, help_text="The set of libraries to load it with; the platform's own if empty."
    )
    paths = forms.JSONField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["description"].widget = LongTextField.widget(attrs={"rows": 2})
        self.fields["model"].widget.attrs["list"] = "suggested-model"
        self.suggestions = {"model": list(RegisteredModel.objects.values_list("name", flat=True)[:MOST_SUGGESTED])}

    def clean(self) -> dict[str, Any]:
        said = super().clean() or {}
        if not said.get("file") and not said.get("folder"):
            self.add_error("file", "Choose at least one file, or a folder.")
        return said

    def incoming(self) -> list[IncomingFile]:
        """The files with their paths in the bundle."""
        files, folder = self.cleaned_data["file"], self.cleaned_data["folder"]
        return [IncomingFile(file.name, file) for file in files] + [
            IncomingFile(path, file) for path, file in zip(self._folder_paths(), folder, strict=True)
        ]

    def metadata(self) -> dict[str, Any]:
        """What was declared, as a client of the REST API would send it."""
        return {name: value for name in METADATA if (value := self.cleaned_data.get(name)) not in (None, "")}

    def _folder_paths(self) -> list[str]:
        """The path of each file of the folder below it, as the page's script noted them; without it, bare names."""
        names = [file.name for file in self.cleaned_data["folder"]]
        paths = self.cleaned_data.get("paths") or []
        if not isinstance(paths, list) or [str(path).rpartition("/")[2] for path in paths] != names:
            return names
        return [str(path).partition("/")[2] or str(path) for path in paths]
