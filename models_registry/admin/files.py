"""A browser of a version's files: folders, sizes, a look into small texts, and downloads."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet
from django.http import Http404
from django.urls import reverse
from django.utils.html import format_html_join
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from models_registry.blobs import open_file
from models_registry.models import BundleFile, ModelVersion
from tenants.site.parts import Facts, Part, Table, Text, code, link, size

MOST_SHOWN = 500
PREVIEWED_BYTES = 128 << 10


@dataclass
class Entry:
    """A file or a folder, with the size of all that is in it. file_count: 0 for a file."""

    name: str
    size_bytes: int = 0
    file_count: int = 0
    sha256: str = ""


def browser_parts(version: ModelVersion, path: str, page: str) -> list[Part]:
    """What stands at a path of the version: a folder's entries, or a file with its text if it is a small one.

    page: the address of the browser, which `?path=` is added to.

    Raises:
        Http404: nothing does.
    """
    files = version.bundle.files.select_related("blob")
    file = files.filter(path=path).first() if path else None
    if file is not None:
        return [_file_part(version, file, page), _preview_part(file)]
    return [_folder_part(version, _below(files, path), path, page)]


def _below(files: QuerySet[BundleFile], folder: str) -> list[Entry]:
    prefix = f"{folder}/" if folder else ""
    rows = files.filter(path__startswith=prefix) if prefix else files
    entries: dict[str, Entry] = {}
    for path, size_bytes, sha256 in rows.values_list("path", "blob__size_bytes", "blob__sha256"):
        name, slash, _ = path.removeprefix(prefix).partition("/")
        entry = entries.setdefault(f"{name}{slash}", Entry(name, sha256="" if slash else sha256))
        entry.size_bytes += size_bytes
        entry.file_count += bool(slash)
    if not entries:
        raise Http404
    return sorted(entries.values(), key=lambda entry: (not entry.file_count, entry.name))


def _folder_part(version: ModelVersion, entries: list[Entry], folder: str, page: str) -> Part:
    rows = [_entry_row(version, entry, folder, page) for entry in entries[:MOST_SHOWN]]
    notes: list[str] = [_trail(folder, page)] if folder else []
    if len(entries) > MOST_SHOWN:
        notes.append(f"{len(entries) - MOST_SHOWN} more are not shown; download the version for all.")
    artifact = reverse("version-artifact", args=[version.model.name, version.number])
    return Part("Files", Table(("Name", "Size", "SHA-256", ""), rows), (artifact, "Download all"), notes, is_wide=True)


def _entry_row(version: ModelVersion, entry: Entry, folder: str, page: str) -> tuple[Any, ...]:
    path = f"{folder}/{entry.name}" if folder else entry.name
    if entry.file_count:
        return link(_at(page, path), f"{entry.name}/"), size(entry.size_bytes), f"{entry.file_count} files", ""
    return (
        link(_at(page, path), entry.name),
        size(entry.size_bytes),
        code(entry.sha256[:12]),
        link(_download(version, path), "Download"),
    )


def _file_part(version: ModelVersion, file: BundleFile, page: str) -> Part:
    facts = {"Path": _trail(file.path, page), "Size": size(file.blob.size_bytes), "SHA-256": code(file.blob.sha256)}
    return Part("File", Facts(facts), (_download(version, file.path), "Download"), is_wide=True)


def _preview_part(file: BundleFile) -> Part:
    text = preview(file)
    if text is None:
        return Part("Content", Facts({}, empty="It is no text, or a long one: download it to look into it."))
    return Part("Content", Text(text, empty="The file is empty."), is_wide=True)


def preview(file: BundleFile) -> str | None:
    """The text of a small file; None where it is long, or no text."""
    if file.blob.size_bytes > PREVIEWED_BYTES:
        return None
    with open_file(file) as source:
        content = source.read()
    if b"\0" in content:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _trail(path: str, page: str) -> SafeString:
    """The folders above a path, each a link, and its own name."""
    parts = path.split("/")
    return format_html_join(" / ", "{}", ((one,) for one in _links(parts, page)))


def _links(parts: list[str], page: str) -> Iterator[Any]:
    yield link(page, "All files")
    for depth, name in enumerate(parts[:-1], 1):
        yield link(_at(page, "/".join(parts[:depth])), name)
    yield parts[-1]


def _at(page: str, path: str) -> str:
    return f"{page}?{urlencode({'path': path})}"


def _download(version: ModelVersion, path: str) -> str:
    return reverse("version-file", args=[version.model.name, version.number, path])
