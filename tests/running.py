"""The commands, run as a user runs them but in this process."""

import contextlib
import importlib
import io
import multiprocessing
import os
import socket
import sys

import pytest

from rcnn import cli
from rcnn.score import one_pass

EVALUATE = "import sys; from rcnn import cli, evaluate; cli.run(lambda: evaluate.main(sys.argv[1:]))"


def rcnn(name, *arguments, code=0):
    """What `python -m rcnn.<name> ARGUMENTS` does, in this process; return (stdout, stderr)."""
    module = importlib.import_module(f"rcnn.{name}")
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr), pytest.raises(SystemExit) as ended:
        cli.run(lambda: module.main([str(a) for a in arguments]))
    assert (ended.value.code or 0) == code, stdout.getvalue() + stderr.getvalue()
    return stdout.getvalue(), stderr.getvalue()


def started(program, *arguments, **environment):
    """A process that runs a Python program; it has imported all that this one has, so it begins at once."""
    process = multiprocessing.get_context("fork").Process(target=_run, args=(program, arguments, environment), daemon=True)
    process.start()
    return process


def _run(program, arguments, environment):
    os.environ |= environment
    sys.argv = ["", *map(str, arguments)]
    exec(program, {})


def ended(*processes):
    """The exit codes of these processes, after their end; None of one that does not end."""
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


def shared(program, first, second, machines=1):
    """The exit codes of two processes with these arguments that share work, as torchrun starts them on one machine or two."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "GLOO_SOCKET_IFNAME": "lo"}
    place |= {"WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "test"}  # by which torchrun is known
    one = started(program, *first, **place, RANK="0", LOCAL_RANK="0")
    return ended(one, started(program, *second, **place, RANK="1", LOCAL_RANK=str(2 - machines)))


def filled(file, *given):
    """A ScoreFile with the scores of all images, see `one_pass.fill`."""
    todo = file.todo()
    file.open(todo)
    one_pass.fill(file, todo, *given)
    file.close()
    return file
