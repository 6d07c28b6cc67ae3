"""What the documents tell a reader to type exists."""

import re
import shlex
from collections.abc import Iterator

import pytest
from django.core.management import get_commands, load_command_class
from django.urls import resolve

from tests.deploy.files import ROOT

DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


def lines_of(pattern: str) -> Iterator[tuple[str, str]]:
    """What a pattern's group finds in the documents, with the name of the document."""
    for document in DOCUMENTS:
        for found in re.finditer(pattern, document.read_text(), re.MULTILINE):
            yield document.name, found[1]


@pytest.mark.parametrize(("document", "link"), list(lines_of(r"\]\((?!http)([^)#]+)\)")))
def test_a_link_leads_somewhere(document: str, link: str) -> None:
    folder = next(path.parent for path in DOCUMENTS if path.name == document)
    assert (folder / link).exists()


@pytest.mark.parametrize(("document", "line"), sorted(set(lines_of(r"^ {4}.*manage\.py ([a-z_]+.*)$"))))
def test_a_command_of_manage_py_takes_these_arguments(document: str, line: str) -> None:
    name, *arguments = shlex.split(line)
    command = load_command_class(get_commands()[name], name)
    command.create_parser("manage.py", name).parse_args(arguments)


@pytest.mark.parametrize(("document", "name"), sorted(set(lines_of(r"`manage\.py ([a-z_]+)"))))
def test_a_command_of_manage_py_exists(document: str, name: str) -> None:
    assert name in get_commands()


@pytest.mark.parametrize(("document", "path"), sorted(set(lines_of(r"\$API(/[^\s\"?`]+)"))))
def test_a_path_of_the_api_is_served(document: str, path: str) -> None:
    from tenantry.urls import TENANT_SURFACE

    assert resolve(f"/api/v1{path}", TENANT_SURFACE)  # type: ignore[arg-type]  # whatever has `urlpatterns` will do


@pytest.mark.parametrize(("document", "target"), sorted(set(lines_of(r"(?:`|^ {4}(?:\S+=\S+ )?)make ([a-z]+)"))))
def test_a_target_of_make_exists(document: str, target: str) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert target in targets


@pytest.mark.parametrize("path", sorted({path for _, path in lines_of(r"`((?:[a-z_]+/)+[a-z_]+\.[a-z]+)`")}))
def test_a_file_that_is_named_is_there(path: str) -> None:
    assert any((ROOT / folder / path).exists() for folder in ("", "platform", "tenants", "runtimes"))
