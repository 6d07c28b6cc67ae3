"""Makes `.venv` with everything that requirements.txt locks, or finds that nothing has changed since.

The machine's own python3 runs this file before anything is installed, so it imports nothing of the project.
"""

import fcntl
import hashlib
import re
import subprocess
import sys
from pathlib import Path

OLDEST = (3, 11)
ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / ".venv"
FINISHED = FOLDER / "installed"  # holds the digest of what was installed
BEGUN = FOLDER / "installing"  # there while an install runs, and after one that was cut short
INSTALLER = "pip==26.3"  # takes three quarters of the time of the one that comes with Python 3.11


def main() -> None:
    """Have an installed `.venv`, or end with a sentence that says what is missing."""
    check_python()
    with (ROOT / "requirements.txt").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two commands at once, the second finds the first one's work
        wanted = digest()
        if not FINISHED.exists() or FINISHED.read_text() != wanted:
            make_and_fill(wanted)


def make_and_fill(wanted: str) -> None:
    """Install, and note that it came to its end."""
    python = make_environment()
    FINISHED.unlink(missing_ok=True)
    BEGUN.touch()
    install(python)
    FINISHED.write_text(wanted)
    BEGUN.unlink()


def check_python() -> None:
    """End with a sentence where this Python will not do."""
    if sys.version_info < OLDEST:
        found = ".".join(map(str, sys.version_info[:3]))
        sys.exit(f"Tenantry needs Python 3.11 or newer, and this is {found}: try `make up PYTHON=python3.12`.")
    try:
        import ensurepip  # noqa: F401 Debian ships it apart from Python
        import venv  # noqa: F401
    except ImportError:
        sys.exit("Python's venv module is missing: install it, on Debian with `apt-get install python3-venv`.")


def digest() -> str:
    """What the files that decide about the install say, as one hash; another Python is another install."""
    parts = [(ROOT / name).read_bytes() for name in ("requirements.txt", "pyproject.toml")]
    return hashlib.sha256(b"\0".join([*parts, sys.version.encode()])).hexdigest()


def make_environment() -> Path:
    """The Python of `.venv`, made anew if there is none that can be built upon."""
    python = FOLDER / "bin" / "python"
    if BEGUN.exists() or not works(python):
        print("Making .venv", flush=True)  # noqa: T201
        if run_venv():
            sys.exit(f"{FOLDER} cannot be made; the lines above say why.")
    return python


def run_venv() -> int:
    """Make an empty environment where there may be a broken one, and return the exit status."""
    return subprocess.run([sys.executable, "-m", "venv", "--clear", str(FOLDER)], check=False).returncode


def works(python: Path) -> bool:
    """Whether this environment's Python runs and is of the version that runs this file."""
    ask = "import sys, pip; sys.exit(sys.version_info[:2] != %r)" % (sys.version_info[:2],)  # noqa: UP031
    return (
        python.exists() and subprocess.run([str(python), "-c", ask], capture_output=True, check=False).returncode == 0
    )


def install(python: Path) -> None:
    """Install what requirements.txt locks."""
    print("Installing requirements.txt into .venv; the first time takes minutes", flush=True)  # noqa: T201
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-compile"]
    # Where it cannot be had, the environment's own does.
    subprocess.run([*command, "--quiet", INSTALLER], cwd=ROOT, stderr=subprocess.DEVNULL, check=False)
    command += ["-r", "requirements.txt", *([] if sys.stdout.isatty() else ["--quiet"])]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        sys.exit("Installing failed; the lines above say why. The same command tries again.")
    compile_libraries(python)


def compile_libraries(python: Path) -> None:
    """Have the libraries' byte code, made by every core at once, where pip takes one. Zygotes write none themselves."""
    own_tests = f"{re.escape(str(FOLDER))}/.*/tests/"  # of the libraries: nobody runs them here
    subprocess.run(
        [str(python), "-m", "compileall", "-qq", "-j", "0", "-x", own_tests, str(FOLDER / "lib")], check=False
    )


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Interrupted; the same command starts anew.")
