#!/usr/bin/env bash
# Stop the servers that scripts/start_multi_port.sh started: SIGTERM, and SIGKILL for those still there after 10 s.
#
#   scripts/stop_multi_port.sh                 all that RUN_DIR knows
#   N=2 PORT=10006 scripts/stop_multi_port.sh  only these ports
#
#   RUN_DIR=run         where the pid files are
set -u
run_dir=${RUN_DIR:-run}
grace_s=10

files=()
if [[ -n ${N:-} ]]; then
    for ((i = 0; i < N; i++)); do files+=("$run_dir/$((${PORT:-10006} + i)).pid"); done
else
    for file in "$run_dir"/*.pid; do files+=("$file"); done
fi

# A pid may belong to somebody else by now: only a process that leads its own session can be one of ours.
ours() { [[ $1 =~ ^[0-9]+$ ]] && [[ $(ps -o sess= -p "$1" 2>/dev/null | tr -d ' ') == "$1" ]]; }

stopped=0
for file in "${files[@]}"; do
    [[ -f $file ]] || continue
    pid=$(cat "$file")
    ours "$pid" && kill -TERM -- "-$pid" 2>/dev/null
done
for file in "${files[@]}"; do
    [[ -f $file ]] || continue
    pid=$(cat "$file")
    for ((tenths = 0; tenths < grace_s * 10; tenths++)); do
        ours "$pid" || break
        sleep 0.1
    done
    ours "$pid" && kill -KILL -- "-$pid" 2>/dev/null
    rm -f "$file"
    stopped=$((stopped + 1))
done
echo "stopped $stopped servers"
