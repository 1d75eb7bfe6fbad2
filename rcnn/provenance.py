"""What a result was made with: this code, the packages, the commit."""

import contextlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path

from rcnn.files import file_sha256

PACKAGE = Path(__file__).parent
PACKAGES = ("torch", "torchvision", "open_clip_torch", "numpy", "pillow", "pycocotools", "safetensors", "scipy")
LEARNING = ("clip", "text", "learn", "rows.py")  # the sources that class embeddings follow from
MEASURING = (  # and the numbers
    "clip", "datasets", "score", "rows.py", "scoring.py", "passes.py", "evaluation.py",
    "runtime.py", "results/measure.py", "results/measuring.py", "results/metrics.py", "results/summary.py",
)  # fmt: skip


def sources(parts: tuple[str, ...]) -> dict[str, str]:
    """{file of this package: SHA-256} of the Python files in `parts`, LEARNING or MEASURING."""
    found = {path for part in parts for path in (PACKAGE / part, *(PACKAGE / part).rglob("*.py")) if path.suffix == ".py"}
    return {path.relative_to(PACKAGE).as_posix(): file_sha256(path) for path in sorted(found)}


def changed_sources(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Names of the files that differ."""
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on, as far as they are known."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def git_commit() -> str | None:
    """Commit of this code, with "+" where files differ from it; None outside a checkout of this project."""
    root = PACKAGE.parent.resolve()  # as Git names it

    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != root:
            return None
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
