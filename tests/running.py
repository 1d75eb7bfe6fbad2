"""The commands, run as a user runs them but in this process."""

import contextlib
import importlib
import io

import pytest

from rcnn import cli
from rcnn.score import one_pass


def rcnn(name, *arguments, code=0):
    """What `python -m rcnn.<name> ARGUMENTS` does, in this process; return (stdout, stderr)."""
    module = importlib.import_module(f"rcnn.{name}")
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr), pytest.raises(SystemExit) as ended:
        cli.run(lambda: module.main([str(a) for a in arguments]))
    assert (ended.value.code or 0) == code, stdout.getvalue() + stderr.getvalue()
    return stdout.getvalue(), stderr.getvalue()


def filled(file, *given):
    """A ScoreFile with the scores of all images, see `one_pass.fill`."""
    todo = file.todo()
    file.open(todo)
    one_pass.fill(file, todo, *given)
    file.close()
    return file
