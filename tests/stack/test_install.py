"""Making `.venv`: skipped when nothing changed, begun anew after an interruption."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tenantry.stack import install


@pytest.fixture
def installs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A checkout of its own whose environments are made and filled in name only; every fill is noted."""
    for name in ("requirements.txt", "pyproject.toml"):
        (tmp_path / name).write_text("")
    monkeypatch.setattr(install, "ROOT", tmp_path)
    monkeypatch.setattr(install, "FOLDER", tmp_path / ".venv")
    monkeypatch.setattr(install, "FINISHED", tmp_path / ".venv" / "installed")
    monkeypatch.setattr(install, "BEGUN", tmp_path / ".venv" / "installing")
    done: list[Path] = []
    monkeypatch.setattr(install, "install", done.append)
    monkeypatch.setattr(install, "run_venv", only_a_link)
    return done


def only_a_link() -> int:
    """In place of the venv module: an environment whose Python is this one."""
    shutil.rmtree(install.FOLDER, ignore_errors=True)
    python = install.FOLDER / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    return 0


def raising(error: BaseException) -> Callable[[Path], None]:
    def work(python: Path) -> None:
        raise error

    return work


def test_it_installs_once(installs: list[Path]) -> None:
    install.main()
    install.main()
    assert len(installs) == 1


@pytest.mark.parametrize("name", ["requirements.txt", "pyproject.toml"])
def test_a_changed_file_installs_again(installs: list[Path], name: str) -> None:
    install.main()
    (install.ROOT / name).write_text("more")
    install.main()
    assert len(installs) == 2


def test_an_interrupted_install_is_made_anew(installs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as interrupted:
        interrupted.setattr(install, "install", raising(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            install.main()
    remains = install.FOLDER / "half a library"
    remains.touch()
    install.main()
    install.main()
    assert not remains.exists()
    assert len(installs) == 1


def test_an_old_python_is_told_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "OLDEST", (99, 0))
    with pytest.raises(SystemExit, match=r"needs Python 3\.11 or newer, and this is 3\."):
        install.check_python()


def test_a_python_without_venv_is_told_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(SystemExit, match="apt-get install python3-venv"):
        install.check_python()
