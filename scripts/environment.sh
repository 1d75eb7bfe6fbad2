# Sourced by the other scripts: a Python environment with everything installed.
# Uses the active virtual environment if there is one, else makes .venv in the project's root.
#   source scripts/environment.sh [test]      # "test" adds what the tests and the linter need
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
if [ -z "${VIRTUAL_ENV:-}" ]; then
  [ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv || exit 1
  . .venv/bin/activate
fi
python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: rcnn needs Python 3.11 or newer" >&2; exit 2; }
wanted=(-r requirements.txt)
[ "${1:-}" != test ] || wanted+=(-r tests/requirements.txt)
# a stamp of the wanted lists makes the second call quick
stamp="$VIRTUAL_ENV/.rcnn-$(cat requirements.txt tests/requirements.txt | cksum | cut -d' ' -f1)-${1:-run}"
if [ ! -e "$stamp" ]; then
  echo "installing packages (several GB the first time)" >&2
  python -m pip install --quiet --disable-pip-version-check "${wanted[@]}" && touch "$stamp" || exit 1
fi
