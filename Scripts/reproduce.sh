#!/usr/bin/env bash
# Makes the paper's tables and figures again (Tables 1 to 3, Figures 2, 3, 5, 9 to 12) and a report on them.
#
#   Scripts/reproduce.sh quick|full [FOLDER]      (default: docs/results/quick or docs/results/full)
#
# Each step leaves one result file, written when it is complete: what is there already is not made again, so a run that
# was interrupted goes on when it is started again. A step that fails is named at the end; the others go on.
#
# KINDRED   the tool (default: .build/release/kindred)
# DATA      the evaluation data (default: ../shared/data), each set in the format in which it is published:
#           wikitext2/wiki.test.raw, mmlu/{dev,test}/*.csv, hotpotqa/hotpot_train_100.json, longbench/gov_report.jsonl
#           (LongBench's JSONL), needle/PaulGrahamEssays/*.txt
# LARGE     the large model (default: qwen2.5-coder-1.5b)
# SMALL     the small model (default: qwen2.5-coder-0.5b)
# PLANS     plan files of this pair to compare (default: those of docs/results/plans, for the default pair)
# ONLY      only the steps whose names begin so
set -uo pipefail
cd "$(dirname "$0")/.."
mode=${1:-}
case $mode in quick | full) ;; *) echo "reproduce: expected quick or full, found \"$mode\"" >&2; exit 64 ;; esac
out=${2:-docs/results/$mode}
kindred=${KINDRED:-.build/release/kindred}
data=${DATA:-../shared/data}
large=${LARGE:-qwen2.5-coder-1.5b}
small=${SMALL:-qwen2.5-coder-0.5b}
if [ -z "${LARGE:-}${SMALL:-}" ]; then
  plans=${PLANS-docs/results/plans/keys-30.json docs/results/plans/keys-50.json}
else
  plans=${PLANS:-}
fi
wiki=$data/wikitext2/wiki.test.raw
failed=()

[ -x "$kindred" ] || { echo "reproduce: expected the tool at $kindred, found none (make build)" >&2; exit 1; }
[ -f "$wiki" ] || {
  echo "reproduce: expected evaluation data in $data, found no wikitext2/wiki.test.raw; set DATA (Scripts/reproduce.sh" \
    "says what belongs there)" >&2
  exit 1
}
mkdir -p "$out/analyze" "$out/.journal"

# A text as a JSON string.
quoted() { printf '"%s"' "$(printf '%s' "$1" | sed 's/\\/\\\\/g; s/"/\\"/g' | tr -d '\000-\037')"; }

if [ ! -s "$out/machine.json" ]; then
  processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
  memory=$(sed -n 's/^MemTotal: *//p' /proc/meminfo)
  {
    printf '{"machine": {"date": %s, "processor": %s, ' "$(quoted "$(date -u +%Y-%m-%d)")" "$(quoted "$processor")"
    printf '"cores": %s, "memory": %s, ' "$(quoted "$(nproc)")" "$(quoted "$memory")"
    printf '"system": %s, "commit": %s, ' "$(quoted "$(uname -sr)")" \
      "$(quoted "$(git describe --always --dirty 2> /dev/null)")"
    printf '"steps": %s}}\n' "$(quoted "$mode")"
  } > "$out/machine.json"
fi

# step NAME COMMAND…: the last line of its output becomes NAME.json.
step() {
  local name=$1 tables=$out/.journal/tables start=$SECONDS
  shift
  rm -rf "$tables"
  [[ $name == "${ONLY:-}"* ]] || return 0
  if [ -s "$out/$name.json" ]; then
    echo "reproduce: $name is there"
    return 0
  fi
  echo "reproduce: $name"
  if "$kindred" "$@" --json | tail -n 1 > "$out/.journal/part" && [ -s "$out/.journal/part" ]; then
    # The tables of an analysis go first: what has its JSON is complete.
    if [ -d "$tables" ]; then mv "$tables"/*.csv "$out/analyze/"; fi
    mv "$out/.journal/part" "$out/$name.json"
    echo "reproduce: $name took $((SECONDS - start)) s"
  else
    failed+=("$name")
  fi
}

# analyze NAME OPTION…: an analysis of the pair, with its tables.
analyze() {
  local name=$1
  shift
  step "analyze/$name" analyze "$name" -m "$large" -s "$small" --text "$wiki" -o "$out/.journal/tables" "$@"
}

# evaluate TASK METHODS OPTION…: methods on a task; a journal keeps the items of an interrupted run.
evaluate() {
  local task=$1 methods=$2
  shift 2
  step "$task" evaluate "$task" -m "$large" -s "$small" --methods "$methods" --journal "$out/.journal/$task.jsonl" \
    --seed 0 "$@"
  [ -s "$out/$task.json" ] && rm -f "$out/.journal/$task.jsonl"
  return 0
}

# scenario NAME MODEL SMALL OPTION…
scenario() {
  local name=$1 model=$2 lender=$3 label
  shift 3
  label=$name-$(printf '%s' "$model" | tr -c 'A-Za-z0-9.\n' '-')
  step "$label" bench --scenario "$name" -m "$model" -s "$lender" "$@"
}

planned= # all plans
last=    # the last of them, for tasks that take long
for plan in $plans; do
  last=,plan:$plan
  planned+=$last
done
essays=$out/.journal/essays.txt
[ -d "$data/needle/PaulGrahamEssays" ] && cat "$data"/needle/PaulGrahamEssays/*.txt > "$essays"
second=()
[ -s "$essays" ] && second=(--text "$essays")

if [ "$mode" = quick ]; then
  analyze similarity                                                              # Figs. 9, 10
  analyze usage --windows 2                                                       # Fig. 12
  analyze consistency --tokens 100 --every 25                                     # Fig. 3
  analyze metrics --max-windows 1                                                 # Table 1
  analyze layers --max-windows 1                                                  # Fig. 2, Table 2
  analyze strategies --max-windows 1 --strategy back --strategy most-similar --ratio 0.3 --ratio 0.5  # Fig. 11
  evaluate perplexity "unmapped,small,paper:0.1,paper:0.3,paper:0.5,random:0.3$planned" \
    --data "$wiki" --max-windows 2                                                # Fig. 5, Table 4
  evaluate mmlu "unmapped,small,paper:0.3,paper:0.5" --data "$data/mmlu" --limit 4
  evaluate hotpotqa "unmapped,paper:0.3" --data "$data/hotpotqa/hotpot_train_100.json" --limit 2
  for name in paper-multi-user paper-long-context; do                             # Table 3
    scenario $name "$large" "$small" --scale 0.125 --repeat 2
    scenario $name random:qwen2-72b:layers=2 random:qwen2-0.5b --scale 0.125 --repeat 2
  done
else
  analyze similarity --windows 8
  analyze usage --windows 8
  analyze consistency
  analyze metrics --max-windows 4
  analyze layers --max-windows 2 "${second[@]}"
  analyze strategies --max-windows 2
  evaluate perplexity \
    "unmapped,small,paper:0.1,paper:0.2,paper:0.3,paper:0.4,paper:0.5,random:0.3,shared:0.3,streaming:0.3$planned" \
    --data "$wiki" --max-windows 8
  evaluate mmlu "unmapped,small,paper:0.3$last" --data "$data/mmlu" --limit 114
  evaluate hotpotqa "unmapped,paper:0.3$last" --data "$data/hotpotqa/hotpot_train_100.json" --limit 8
  evaluate govreport "unmapped,paper:0.3$last" --data "$data/longbench/gov_report.jsonl" --limit 2 --context 4096
  evaluate needle "unmapped,paper:0.3$last" --data "$data/needle/PaulGrahamEssays" --lengths 1024,2048 \
    --depths 0,50,100
  for name in paper-multi-user paper-long-context; do
    scenario $name "$large" "$small" --scale 0.1875 --repeat 3
    scenario $name random:qwen2-72b:layers=2 random:qwen2-0.5b --scale 0.1875 --repeat 3
  done
fi

rm -f "$essays"
"$kindred" report "$out" || exit 1
if [ ${#failed[@]} -gt 0 ]; then
  echo "reproduce: these steps failed: ${failed[*]}" >&2
  exit 1
fi
