#!/usr/bin/env bash
# Open Images, from nothing to the paper's Table 2 with ours beside.
#
#   bash scripts/openimages.sh [--skip STEP] [key=value …]
#
# Steps, in this order; each may be skipped, and what is finished is not done again:
#   data       download the test images and their labels (38.9 GB), unless downloads/openimages has them
#   check      what is there, and what is missing
#   train      learn the class names from text (CNR, CNR + PBL); a killed run goes on
#   evaluate   one pass over the images for all rows; a killed run goes on
#   report     the paper's table beside ours, also as outputs/openimages/tables.{md,csv,tex}
# Pairs are configuration keys, such as train.epochs=5, clip.weights=ViT-B-16.pt or output=outputs/other;
# python -m rcnn.train --help lists them. Images you have already: python scripts/prepare_openimages.py --folder /data/openimages

set -euo pipefail
CDPATH='' cd -- "$(dirname -- "$0")/.."
config=configs/openimages.yaml
source scripts/steps.sh

# the images and labels of the paper's test set; nothing to do where the pairs name others
get_data() {
  case "$images" in
    */downloads/openimages/test) python scripts/prepare_openimages.py ;;
    *) echo "the configuration names other images: $images" ;;
  esac
}
step data get_data
# the class descriptions, composed in a minute of the answers that ship
case " $* " in
  *" corpus.path="*) ;;
  *) [ -e data/openimages/corpus.json ] || python -m rcnn.describe openimages ;;
esac
measure "$@"
