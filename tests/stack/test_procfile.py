"""The Procfile's form, and the log's lines."""

import io
from pathlib import Path

import pytest

from tenantry.stack.errors import BadStart
from tenantry.stack.log import LONGEST_LINE, Lines, Log
from tenantry.stack.procfile import read_procfile
from tenantry.stack.supervisor import Stage
from tenantry.stack.up import stage_of

ROOT = Path(__file__).resolve().parents[2]


def test_the_projects_own_procfile_names_its_processes() -> None:
    stages = {name: stage_of(name) for name in read_procfile(ROOT / "Procfile")}
    assert stages == {
        "web": Stage.WEB,
        "worker-inference": Stage.WORKERS,
        "worker-batch": Stage.WORKERS,
        "worker-training": Stage.WORKERS,
        "worker-default": Stage.WORKERS,
        "beat": Stage.WORKERS,
        "model-host": Stage.MODEL_HOST,
    }


def test_comments_and_empty_lines_are_no_processes(tmp_path: Path) -> None:
    file = tmp_path / "Procfile"
    file.write_text("# all of them\n\nweb: serve --port $PORT\n")
    assert read_procfile(file) == {"web": "serve --port $PORT"}


@pytest.mark.parametrize("line", ["web", "web:", "we b: serve", "web: a\nweb: b"])
def test_a_line_in_another_form_is_refused_with_its_number(tmp_path: Path, line: str) -> None:
    file = tmp_path / "Procfile"
    file.write_text(line)
    with pytest.raises(BadStart, match=r"line \d"):
        read_procfile(file)


def test_a_missing_procfile_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadStart, match="cannot be read: No such file"):
        read_procfile(tmp_path / "Procfile")


def test_each_line_bears_its_process_and_moves_no_cursor() -> None:
    out = io.StringIO()
    lines = Lines(Log(out), "web")
    lines.feed(b"one\ntw")
    lines.feed(b"o \x1b[2J\r\nrest")
    lines.close()
    assert out.getvalue().splitlines() == [f"{'web':<16} | {text}" for text in ("one", "two [2J", "rest")]


def test_a_line_without_end_is_cut() -> None:
    out = io.StringIO()
    Lines(Log(out), "web").feed(b"x" * (LONGEST_LINE + 1))
    assert out.getvalue().count("x") == LONGEST_LINE
