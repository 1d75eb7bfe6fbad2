"""The one command with all commands in it, and the frame that they share."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from running import rcnn

from rcnn import __main__ as front
from rcnn import cli, config, interrupt, runtime

ROOT = Path(__file__).parents[1]


def test_help_lists_every_command_with_a_line(capsys):
    with pytest.raises(SystemExit, match="0"):
        front.main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    for name, text in front.COMMANDS.items():
        assert f"  {name:10} {text}" in lines


def test_every_module_that_is_a_command_is_in_the_table():
    modules = {p.stem for p in (ROOT / "rcnn").glob("[!_]*.py") if "\n    cli.run(main)\n" in p.read_text()}
    assert modules == set(front.COMMANDS)


def test_help_imports_no_torch():
    code = """
import sys
from rcnn.__main__ import main
try:
    main(["--help"])
except SystemExit:
    print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_help_whose_reader_has_gone_ends_without_a_traceback():
    command = f"{sys.executable} -m rcnn --help | true"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_an_unknown_command_is_one_line_with_the_nearest(capsys):
    assert front.main(["tarin", "--config", "x"]) == 2
    assert capsys.readouterr().err == "error: there is no command tarin; the nearest is train, and rcnn --help lists all\n"


@pytest.mark.parametrize("name", front.COMMANDS)
def test_help_of_every_command_teaches(name):
    stdout, _ = rcnn(name, "--help")
    assert f"python -m rcnn.{name}" in stdout
    assert "--quiet" in stdout


def test_a_command_runs_through_the_front_and_calls_itself_as_it_was_called(monkeypatch, capsys):
    for called, shown in (("/usr/bin/rcnn", "rcnn report"), ("/x/rcnn/__main__.py", "python -m rcnn.report")):
        monkeypatch.setattr(sys, "argv", [called])
        with pytest.raises(SystemExit) as ended:
            front.main(["report", "--help"])
        assert not ended.value.code
        assert capsys.readouterr().out.startswith(f"usage: {shown} ")


def test_bad_input_of_a_command_is_one_line_through_the_front(capsys):
    with pytest.raises(SystemExit) as ended:
        front.main(["report", "nowhere"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")


INSTALLED = "from rcnn.__main__ import main; main(['train'])"  # what the installed rcnn does


@pytest.mark.parametrize("command", [["-m", "rcnn.train"], ["-m", "rcnn", "train"], ["-c", INSTALLED]])
def test_ctrl_c_during_imports_is_one_line_and_130(command, tmp_path):
    # a torch that never finishes importing, found first
    (tmp_path / "torch.py").write_text("import time\nprint('importing', flush=True)\nwhile True:\n    time.sleep(60)\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert (process.returncode, stderr) == (130, "interrupted\n")


@pytest.mark.parametrize("allocate", [bytearray, lambda size: torch.empty(size, dtype=torch.uint8)])
def test_too_little_memory_is_one_line(capsys, allocate):
    with pytest.raises(SystemExit) as ended:
        cli.run(lambda: allocate(1 << 60))
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: too little memory; lower evaluate.batch_size or evaluate.workers (")


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.default_int_handler])
def test_ctrl_c_is_as_it_was_when_a_command_starts(handler):
    before = signal.signal(signal.SIGINT, handler)
    try:
        interrupt.one_line()
        with pytest.raises(SystemExit):
            cli.run(lambda: None)
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_during_a_command_is_one_line_and_130(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.run(lambda: signal.raise_signal(signal.SIGINT))
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_the_clip_of_another_run_is_refused():
    weights = {"clip": {"model": None, "pretrained": None, "weights": str(ROOT / "data/mini/clip.safetensors")}}
    settings = config.override({**weights, "device": "cpu"}, [])
    with pytest.raises(ValueError, match="learned with other weights"):
        runtime.load_clip(settings, {"identity": {"clip": "another"}})
    assert runtime.load_clip(settings, precision="bf16").device.type == "cpu"
