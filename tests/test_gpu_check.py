"""The check that is prepared for a GPU, tried without one."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "gpu_check.py"


def test_the_check_of_a_gpu_runs_on_a_cpu_and_finds_everything_equal():
    command = [sys.executable, SCRIPT, "--device", "cpu", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    said = {line[:58].strip(): line[58:].strip() for line in done.stdout.splitlines()}
    assert said["everything that must be equal is"] == "True"
    assert float(said["float32: largest deviation of features, of scores"].split()[0]) < 1e-5
