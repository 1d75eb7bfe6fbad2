import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "benchmark_predict.py"


def test_a_quick_run_measures_the_store_beside_the_tower_and_a_collection_that_answers():
    run = subprocess.run(
        [sys.executable, SCRIPT, "--quick", "--images", "2"], cwd=SCRIPT.parents[1], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    last = run.stdout.splitlines()[-1]
    assert re.fullmatch(r"ratio=0\.\d+ answer=\d+\.\d+ memory=\d+", last), last
