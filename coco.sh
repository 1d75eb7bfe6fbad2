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
steps="data check train evaluate report" config=configs/coco.yaml run=outputs/coco
source scripts/steps.sh
source scripts/environment.sh run

# the images and labels of the paper's test set; nothing to do where the pairs name others
if wanted data; then
  case " ${pairs[*]-} " in
    *" dataset.images="*) echo "the configuration names other images" ;;
    *)
      # nothing there, or a download or an unpacking that was broken off
      if [ ! -e downloads/coco/val2014 ] || [ ! -e downloads/coco/annotations ] || compgen -G "downloads/coco/*.zip*" > /dev/null; then
        python scripts/prepare_coco.py
      fi
      ;;
  esac
fi
if wanted check; then python -m rcnn.data check --config "$config" ${pairs[@]+"${pairs[@]}"}; fi
# text alone: 65 classes, their descriptions, CLIP's text encoder
if wanted train; then python -m rcnn.train --no-evaluate --config "$config" ${pairs[@]+"${pairs[@]}"}; fi
# images: every row of the tables, and every epoch, from one pass of CLIP's image encoder
if wanted evaluate; then python -m rcnn.evaluate "$run" ${later[@]+"${later[@]}"}; fi
if wanted report; then python -m rcnn.report "$run" --write "$run"; fi
