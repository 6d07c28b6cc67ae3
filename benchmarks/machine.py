"""What the figures were measured on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

LIBRARIES = ("Django", "granian", "scikit-learn", "onnxruntime", "torch", "numpy")


def described() -> str:
    """One sentence: cores, processor, kernel, Python, libraries."""
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    machine = f"{os.cpu_count()} cores ({_processor()}), Linux {platform.release()}"
    return f"{machine}, Python {platform.python_version()}, {libraries}"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
