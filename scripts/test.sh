#!/usr/bin/env bash
# Everything for the tests: environment, then pytest, a process for each core (up to four), each with one thread of torch.
#   bash scripts/test.sh [pytest arguments …]      # -n 0: one process
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh" test
OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" python -m pytest -n auto --maxprocesses 4 --dist loadfile "$@"
