"""The deployment's files as values, and the variables that each of them and the code name."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("platform", "common", "tenants", "runtimes", "models_registry", "training", "inference")
VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{2,}")
INTERPOLATED = re.compile(r"(?<!\$)\$\{?([A-Z][A-Z0-9_]{2,})")
# Who is asked for a variable: `environ.Env`, os.environ, a mapping like it, tenantry.environment.
ASKED = {"env", "given", "environment"}
READERS = {"required", "positive", "count", "one_of", "switch", "folder", "mapping", "web_address", "web_addresses"}
# What the operating system, a terminal or the supervisor says, and nobody sets.
NOT_SETTINGS = {
    "PATH",
    "HOSTNAME",
    "XDG_RUNTIME_DIR",
    "NO_COLOR",
    "TENANTRY_URL",
    "PGPASSWORD",
    "DJANGO_SETTINGS_MODULE",
}


@cache
def procfile() -> dict[str, str]:
    """The commands of the Procfile by process."""
    lines = (ROOT / "Procfile").read_text().splitlines()
    return dict(line.split(": ", 1) for line in lines if not line.startswith("#"))


@cache
def compose() -> dict[str, Any]:
    """docker-compose.yml, its anchors resolved and its variables not."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return content


@cache
def heroku() -> dict[str, Any]:
    """heroku.yml."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "heroku.yml").read_text())
    return content


def heroku_commands() -> dict[str, str]:
    """The commands of heroku.yml by process."""
    return {
        name: process if isinstance(process, str) else " ".join(process["command"])
        for name, process in heroku()["run"].items()
    }


def compose_commands() -> dict[str, str]:
    """The commands of compose's services that run this project's image."""
    services = compose()["services"].items()
    return {name: " ".join(service["command"]) for name, service in services if service["image"] == "tenantry"}


def documented() -> set[str]:
    """The settings that .env.example explains."""
    return set(re.findall(r"^#([A-Z][A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))


def interpolated(text: str) -> set[str]:
    """The variables that a text of the shell or of compose leaves to be filled in."""
    return set(INTERPOLATED.findall(text))


@cache
def read_by_code() -> frozenset[str]:
    """The variables that the code, the Procfile and the deployment's scripts read."""
    scripts = [path.read_text() for path in (ROOT / "deploy").iterdir() if path.is_file()]
    in_shell = {name for text in [*procfile().values(), *scripts] for name in interpolated(text)}
    in_python = {name for source in SOURCES for path in (ROOT / source).rglob("*.py") for name in _names_in(path)}
    return frozenset((in_shell | in_python) - NOT_SETTINGS)


def _names_in(path: Path) -> Iterator[str]:
    """The variables that a module asks for by a literal, or keeps the name of in a constant."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(func=function, args=[ast.Constant(value=str(text)), *_]) if _asks(function):
                names = [text]
            case ast.Assign(targets=[ast.Name(id="COUNTS")], value=ast.Tuple(elts=elements)):
                names = [str(element.value) for element in elements if isinstance(element, ast.Constant)]
            case ast.Assign(targets=[ast.Name(id="OPT_OUT_VARIABLE")], value=ast.Constant(value=str(text))):
                names = [text]
            case _:
                names = []
        yield from (name for name in names if VARIABLE.fullmatch(name))


def _asks(function: ast.expr) -> bool:
    """Whether a call of this function may ask for a variable by its first argument."""
    match function:
        case ast.Attribute(value=ast.Attribute(value=ast.Name(id="os"), attr="environ")):
            return True
        case ast.Attribute(value=ast.Name(id=name)):
            return name in ASKED
        case ast.Name(id=name):
            return name in READERS
        case _:
            return False
