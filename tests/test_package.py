"""What the package is to a program that imports it, and what the wheel holds."""

import fnmatch
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import rcnn

ROOT = Path(__file__).parents[1]


def python(code):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def test_importing_the_package_imports_no_torch():
    assert python("import sys, rcnn; print([m for m in ('torch', 'numpy', 'PIL', 'tqdm') if m in sys.modules])") == "[]"


def test_importing_the_package_leaves_signals_alone():
    assert python("import signal, rcnn; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)") == "True"


def test_the_tagger_is_imported_when_asked_for():
    from rcnn.tagger import Tagger

    assert rcnn.Tagger is Tagger
    assert "Tagger" in rcnn.__all__


def test_the_package_has_no_other_names():
    with pytest.raises(AttributeError, match="Tager"):
        _ = rcnn.Tager


def test_the_wheel_holds_every_file_of_the_package_and_says_that_it_is_typed():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    files = [p for p in (ROOT / "rcnn").rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")]
    assert {"py.typed", "prompts.yaml"} <= {p.name for p in files}
    assert not [p for p in files if not any(fnmatch.fnmatch(p.name, pattern) for pattern in declared)]
    assert all((p.parent / "__init__.py").is_file() for p in files)  # only packages are searched for such files
