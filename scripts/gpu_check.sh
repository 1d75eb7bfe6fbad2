#!/usr/bin/env bash
# What only a GPU shows, in one run of under eight minutes: deviations, speeds, memory; see scripts/gpu_check.py.
#   bash scripts/gpu_check.sh [--device cpu --quick]
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh" run
exec python scripts/gpu_check.py "$@"
