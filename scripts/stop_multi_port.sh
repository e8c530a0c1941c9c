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

# A pid may belong to somebody else by now: ours leads a session of its own, and began when we started it.
ours() {
    local pid=$1 since=${2%.pid}.since
    [[ $pid =~ ^[0-9]+$ && -f $since ]] || return 1
    [[ $(ps -o sess= -p "$pid" 2>/dev/null | tr -d ' ') == "$pid" ]] || return 1
    [[ $(ps -o lstart= -p "$pid" 2>/dev/null) == "$(cat "$since")" ]]
}

stopped=0
for file in "${files[@]}"; do
    [[ -f $file ]] || continue
    pid=$(cat "$file")
    ours "$pid" "$file" && kill -TERM -- "-$pid" 2>/dev/null
done
for file in "${files[@]}"; do
    [[ -f $file ]] || continue
    pid=$(cat "$file")
    for ((tenths = 0; tenths < grace_s * 10; tenths++)); do
        ours "$pid" "$file" || break
        sleep 0.1
    done
    ours "$pid" "$file" && kill -KILL -- "-$pid" 2>/dev/null
    rm -f "$file" "${file%.pid}.since"
    stopped=$((stopped + 1))
done
echo "stopped $stopped servers"
