#!/usr/bin/env bash
# Everything for the mini benchmark: environment, drawings, learning, evaluation, table.
#   bash scripts/mini.sh [key=value …]     # extra pairs go to rcnn.train; relative paths start at the project's root
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh" run
python scripts/draw_mini.py
python -m rcnn.train --config configs/mini.yaml "$@"
