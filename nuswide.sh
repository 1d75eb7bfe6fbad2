#!/usr/bin/env bash
# NUS-WIDE, from its files to the paper's Tables 2 and 3 with ours beside.
#
#   bash nuswide.sh [--skip STEP] [key=value …]
#
# Steps, in this order; each may be skipped, and what is finished is not done again:
#   data       look for NUS-WIDE in downloads/nuswide; its site hands it out on request, so no script can fetch it
#   check      what is there, and what is missing
#   train      learn the class names from text (CNR, CNR + PBL); a killed run goes on
#   evaluate   one pass over the images for all rows; a killed run goes on
#   report     the paper's tables beside ours, also as outputs/nuswide/tables.{md,csv,tex}
# Pairs are configuration keys, such as train.epochs=5, clip.weights=ViT-B-16.pt or output=outputs/other;
# python -m rcnn.train --help lists them. To link what you have: python scripts/prepare_nuswide.py --folder /data/nuswide

set -euo pipefail
CDPATH='' cd -- "$(dirname -- "$0")"
config=configs/nuswide.yaml
source scripts/steps.sh

# the test images, their tags and labels
look_for_data() {
  [ -d "$images" ] || {
    echo "error: NUS-WIDE's images are not in $images; python scripts/prepare_nuswide.py --help says how to get them" >&2
    return 2
  }
}
step data look_for_data
measure "$@"
