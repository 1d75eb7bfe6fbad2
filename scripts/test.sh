#!/usr/bin/env bash
# Everything for the tests: environment, then pytest.
#   bash scripts/test.sh [pytest arguments …]
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh" test
python -m pytest "$@"
