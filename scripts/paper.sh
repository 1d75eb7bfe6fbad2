#!/usr/bin/env bash
# The whole paper: every table of the data sets that are here, ours beside, and figures, in outputs/paper/README.md.
#
#   bash scripts/paper.sh [--skip STEP] [key=value …]
#
# Steps, in this order; each may be skipped, and what is finished is not done again:
#   coco         as bash coco.sh, if downloads/coco has its images
#   nuswide      as bash nuswide.sh, if downloads/nuswide has its images
#   openimages   as bash scripts/openimages.sh, if downloads/openimages has its images
#   mini         the mini benchmark, as bash scripts/mini.sh, if none of them can be measured
#   page         outputs/paper/README.md; of the data sets also outputs/paper/tables.{md,csv,tex}
# Nothing is downloaded, CLIP's weights neither: the page says what is absent and how to get it, with the hours that measuring
# will take here.
# What fails does not stop the others; the exit code is then 1, and the last line names it.
# Pairs are configuration keys for all of them, such as train.epochs=5, clip.weights=ViT-B-16.pt, evaluate.keep_scores=true,
# which Figures 3 and 5 need, or evaluate.tagclip=true, which measures the paper's TagCLIP* by a second pass over the images.

set -euo pipefail
CDPATH='' cd -- "$(dirname -- "$0")/.."
config=configs/mini.yaml
script_steps="coco nuswide openimages mini page"
source scripts/steps.sh
for pair in "$@"; do
  case "$pair" in
    output=* | classes.* | corpus.path=* | dataset.kind=* | dataset.images=* | dataset.annotations=*)
      echo "error: ${pair%%=*} is of one data set alone; give it to coco.sh, nuswide.sh or scripts/openimages.sh" >&2
      exit 2
      ;;
  esac
done
ready=" $(python scripts/paper_ready.py "$@") "
states="" failed=""

# keep NAME COMMAND …   runs the command, and notes whether it went well
keep() {
  local name="$1" code=0
  shift
  "$@" || code=$?
  case "$code" in
    0) states+=" --measured $name" ;;
    130 | 143) exit "$code" ;; # interrupted, and so are we
    *) failed+=" $name" states+=" --failed $name" ;;
  esac
}
# data_set NAME SCRIPT PAIR …   the script without its download, if the data set is here
data_set() {
  local name="$1" script="$2"
  shift 2
  case "$ready" in
    *" $name "*) keep "$name" bash "$script" --skip data "$@" ;;
    *) echo "its images or CLIP's weights are not here" ;;
  esac
}
mini() {
  if [ "$ready" = "  " ]; then keep mini bash scripts/mini.sh "$@"; else echo "not needed"; fi
}
page() {
  # each state is a word without spaces
  # shellcheck disable=SC2086
  python scripts/paper_page.py $states "$@" || failed+=" page"
}
step coco data_set coco coco.sh "$@"
step nuswide data_set nuswide nuswide.sh "$@"
step openimages data_set openimages scripts/openimages.sh "$@"
step mini mini "$@"
step page page "$@"
[ -z "$failed" ] || { echo "failed:$failed" >&2; exit 1; }
