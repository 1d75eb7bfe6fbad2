# Sourced by coco.sh, nuswide.sh, openimages.sh and paper.sh, which name their `config`, and the last its `script_steps`. Reads
# --help, --skip STEP and key=value pairs, goes to an environment in which everything is installed, and leaves
#   "$@"              the pairs
#   run, images       the folders that the configuration and the pairs name
#   step NAME …       runs the command … unless the step was skipped
#   measure "$@"      the steps of a data set that follow its download
steps="${script_steps:-data check train evaluate report}" pairs=() skipped=" "
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help)
      script="${0##*/}"
      [ -e "$script" ] || script="scripts/$script"
      sed -n '2,/^$/s/^# \{0,1\}//p' "$script"
      exit 0
      ;;
    --skip)
      case " $steps " in
        *" ${2-} "*) skipped+="$2 " ;;
        *) echo "error: --skip ${2-}: the steps are $steps" >&2; exit 2 ;;
      esac
      shift
      ;;
    *=*) pairs+=("$1") ;;
    *) echo "error: expected --skip STEP or key=value, got $1; see --help" >&2; exit 2 ;;
  esac
  shift
done
set -- ${pairs[@]+"${pairs[@]}"} # an empty array is an error in bash 3
source scripts/environment.sh run

folders="$(python - "$config" "$@" << 'END'
import sys
from rcnn import config

try:
    settings = config.load(sys.argv[1], sys.argv[2:])
except (ValueError, OSError) as error:
    sys.exit(f"error: {error}")
print(settings.output, settings.dataset.images, sep="\n")
END
)" || exit 2
{ read -r run; read -r images; } <<< "$folders"

step() {
  local name="$1"
  shift
  case "$skipped" in *" $name "*) echo "== $name: skipped"; return ;; esac
  echo "== $name"
  "$@"
}

measure() {
  step check python -m rcnn.data check --config "$config" "$@"
  # text alone: the classes, their descriptions, CLIP's text encoder
  step train python -m rcnn.train --no-evaluate --config "$config" "$@"
  # images: every row of the tables, and every epoch, from one pass of CLIP's image encoder
  step evaluate python -m rcnn.evaluate "$run" "$@"
  step report python -m rcnn.report "$run" --write "$run"
}
