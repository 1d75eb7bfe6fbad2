"""Functions of one's own, named MODULE:FUNCTION: found from the current folder, run, and their errors on one line."""

import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rcnn.files import digest, read_bytes
from rcnn.printing import cut

MOST = 1 << 24  # bytes of a source file


def is_name(value: str) -> bool:
    """Whether a value names a function: it is like one, and there is no such file."""
    return bool(re.fullmatch(r"(\w+\.)*\w+:\w+", value)) and not Path(value).is_file()


@dataclass(frozen=True)
class Function:
    """A function from a source file; what it raises becomes a ValueError that says where."""

    name: str  # module:function
    path: str
    sha256: str  # of the source file
    function: Callable

    def __call__(self, *arguments: Any) -> Any:
        """What the function returns."""
        try:
            return self.function(*arguments)
        except (Exception, SystemExit) as error:
            raise _raised(self.name, self.path, error) from None


def load(name: str) -> Function:
    """The function that a name as in `is_name` is of; the current folder is searched first.

    Raises:
        ValueError: no such module or function, one without a source file, or a module that raises.
    """
    module_name, _, function_name = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()
    try:
        spec = importlib.util.find_spec(module_name)
    except (Exception, SystemExit) as error:  # there is no such folder, or its __init__.py raises
        if not isinstance(error, ModuleNotFoundError) or not f"{module_name}.".startswith(f"{error.name}."):
            raise _raised(name, "", error) from None
        spec = None
    if spec is None:
        raise ValueError(f"{name}: there is no module {module_name} in {os.getcwd()}, nor among the installed ones")
    if not spec.origin or not spec.origin.endswith(".py"):
        raise ValueError(f"{name}: expected a module with a Python source file, by which a changed function is noticed")
    source = read_bytes(spec.origin, MOST)
    module = sys.modules.get(module_name) or _execute(name, spec, source)
    if not callable(function := getattr(module, function_name, None)):
        raise ValueError(f"{name}: there is no function {function_name} in {spec.origin}")
    return Function(name, spec.origin, digest(source), function)


def _execute(name, spec, source):
    """A new module of this very source, past the cache of compiled files, which may be behind by a second."""
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # which dataclasses, for one, look for
    try:
        exec(compile(source, spec.origin, "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise _raised(name, spec.origin, error) from None
    finally:
        sys.modules.pop(spec.name, None)  # so that the next time the file is read again
    return module


def _raised(name, path, error):
    """A ValueError with what was raised, and the last line of the source file that was on the way."""
    frames = traceback.extract_tb(error.__traceback__)
    place = ([frame for frame in frames if frame.filename == path] or frames)[-1]
    if isinstance(error, SyntaxError):
        where = f"{error.filename or path}, line {error.lineno}"
    else:
        where = f"{place.filename}, line {place.lineno}: {cut(place.line or '')}"
    return ValueError(f"{name} raised {type(error).__name__}: {cut(' '.join(str(error).split()))} ({where})")
