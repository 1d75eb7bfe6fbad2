# Sourced by coco.sh and nuswide.sh: reads --help, --skip STEP and key=value pairs into
#   pairs             all of them
#   later             those that rcnn.evaluate takes
#   run               the folder of the run
# and gives `wanted STEP`: whether a step was not skipped.
pairs=() later=()
skipped=" "
usage() {
  sed -n '2,/^$/s/^# \{0,1\}//p' "${0##*/}"
}
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help) usage; exit 0 ;;
    --skip) skipped+="${2:?--skip needs the name of a step} "; shift ;;
    *=*) pairs+=("$1") ;;
    *) echo "error: expected --skip STEP or key=value, got $1; see --help" >&2; exit 2 ;;
  esac
  shift
done
for step in $skipped; do
  case " $steps " in *" $step "*) ;; *) echo "error: --skip $step: the steps are $steps" >&2; exit 2 ;; esac
done
wanted() {
  case "$skipped" in *" $1 "*) echo "== $1: skipped"; return 1 ;; esac
  echo "== $1"
}
for pair in ${pairs[@]+"${pairs[@]}"}; do
  case "$pair" in
    output=*) run="${pair#output=}" ;;
    device=* | cache=* | dataset.* | evaluate.* | clip.weights=* | clip.trust_torchscript=*) later+=("$pair") ;;
  esac
done
