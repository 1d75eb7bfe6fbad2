import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "benchmark_train.py"


def test_quick_run_compares_equal_losses():
    command = [sys.executable, SCRIPT, "--quick", "--steps", "2", "--threads", "1", "--device", "cpu"]
    run = subprocess.run(command, cwd=SCRIPT.parents[1], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    last = run.stdout.splitlines()[-1]
    found = re.fullmatch(
        r"ratio coco=\d+\.\d+ nuswide=\d+\.\d+ loss_difference=(\S+) encode=\d+\.\d bf16_learning=\d+\.\d\d", last
    )
    assert found, last
    assert float(found[1]) < 1e-4
