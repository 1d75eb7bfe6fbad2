# Sourced by the other scripts: go to the project's root, with a Python environment in which everything is installed.
# Uses the active virtual environment if there is one, else makes .venv.
#   source scripts/environment.sh run       # or "test", which adds what the tests and the linter need
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." || exit 1
if [ -z "${VIRTUAL_ENV:-}" ]; then
  if [ ! -e .venv/bin/activate ]; then
    "${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
      echo "error: Python 3.11 or newer is needed; set PYTHON=/path/to/python3.12" >&2
      exit 2
    }
    "${PYTHON:-python3}" -m venv .venv || { rm -rf .venv; exit 1; }
  fi
  . .venv/bin/activate
fi
wanted=(-r requirements.txt)
[ "$1" != test ] || wanted+=(-r tests/requirements.txt)
# a file named after the lists' checksum says that they are installed
stamp="$VIRTUAL_ENV/.rcnn-$1-$(cat requirements.txt tests/requirements.txt | cksum | cut -d' ' -f1)"
if [ ! -e "$stamp" ]; then
  echo "installing packages (several GB the first time)" >&2
  pip() { python -m pip install --quiet --disable-pip-version-check "$@" || exit 1; }
  pip "${wanted[@]}"
  # Gradio asks for an older Pillow, but runs with the newer, whose rounding the golden values have
  [ "$1" != test ] || pip --no-deps --upgrade 'pillow>=13'
  touch "$stamp"
fi
