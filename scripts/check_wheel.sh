#!/usr/bin/env bash
# Build the wheel, install it outside the tree, and use it from another folder: help, a dry run, a tag.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh" test
tree=$PWD place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
mkdir "$place/source" "$place/work"
cp -R rcnn pyproject.toml requirements.txt README.md LICENSE "$place/source"  # a build leaves files beside its sources
pip="python -m pip --quiet --disable-pip-version-check"
$pip wheel --no-deps --wheel-dir "$place" "$place/source"
$pip install --no-deps --target "$place/installed" "$place"/rcnn-*.whl

cd "$place/work"
export PYTHONPATH="$place/installed"
rcnn="$place/installed/bin/rcnn"
expect() {  # what the command printed last has to hold this
  grep -q -- "$1" output || { echo "error: expected '$1' of the installed rcnn, got:" >&2; cat output >&2; exit 1; }
}
printf 'dog\ncrane [a wading bird]\n' > names.txt
python -c "import PIL.Image; PIL.Image.new('RGB', (64, 48), 'green').save('photo.png')"
python -c "import rcnn; print(rcnn.__file__)" > output; expect "$place/installed/"
"$rcnn" --help > output; expect predict
"$rcnn" describe names.txt --dry-run > output; expect "requests to OpenAI"
"$rcnn" predict photo.png --classes names.txt --format csv \
  clip.model=null clip.pretrained=null clip.weights="$tree/data/mini/clip.safetensors" > output; expect "photo.png,2,"
echo "the wheel works outside the tree"
