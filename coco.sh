#!/usr/bin/env bash
# MS-COCO, from nothing to the paper's Tables 1 and 3 with ours beside.
#
#   bash coco.sh [--skip STEP] [key=value …]
#
# Steps, in this order; each may be skipped, and what is finished is not done again:
#   data       download val2014 and its annotations (6.9 GB), unless downloads/coco has them
#   check      what is there, and what is missing
#   train      learn the class names from text (CNR, CNR + PBL); a killed run goes on
#   evaluate   one pass over the images for all rows; a killed run goes on
#   report     the paper's tables beside ours, also as outputs/coco/tables.{md,csv,tex}
# Pairs are configuration keys, such as train.epochs=5, clip.weights=ViT-B-16.pt or output=outputs/other;
# python -m rcnn.train --help lists them. Images you have already: python scripts/prepare_coco.py --folder /data/coco

set -euo pipefail
CDPATH='' cd -- "$(dirname -- "$0")"
config=configs/coco.yaml
source scripts/steps.sh

# the images and labels of the paper's test set; nothing to do where the pairs name others
get_data() {
  case "$images" in
    */downloads/coco/val2014) python scripts/prepare_coco.py ;;
    *) echo "the configuration names other images: $images" ;;
  esac
}
step data get_data
measure "$@"
