#!/usr/bin/env bash
# Start N generation servers on consecutive ports, one a GPU, and wait until all are healthy.
#
#   scripts/start_multi_port.sh                           four reference servers on 10006 to 10009
#   N=8 PORT=10006 SERVER_COMMAND='python serve.py --port {port}' scripts/start_multi_port.sh
#
#   N=4                 how many servers
#   PORT=10006          the first port
#   SERVER_COMMAND=…    what to start; {port} and {gpu} are filled in
#   GPUS="0 1 2 3"      CUDA_VISIBLE_DEVICES of each server; default 0, 1, 2 …
#   RUN_DIR=run         holds PORT.pid, PORT.since and PORT.log
#   WAIT_S=300          how long they may take to load their models
#   HEALTH=/health      the path that answers 200 when a server is ready
#
# Exit 0 when all are healthy; otherwise everything this call started is stopped again. Stop: scripts/stop_multi_port.sh
set -u
here=$(cd "$(dirname "$0")" && pwd)
n=${N:-4}
first=${PORT:-10006}
run_dir=${RUN_DIR:-run}
wait_s=${WAIT_S:-300}
health=${HEALTH:-/health}
command=${SERVER_COMMAND:-"${PYTHON:-python3} -m runner serve --port {port}"}
read -r -a gpus <<<"${GPUS:-}"

fail() {
    echo "start_multi_port: $1" >&2
    exit 1
}

listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

healthy() {
    local line
    line=$(timeout 5 bash -c '
        exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
        printf "GET %s HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n" "$2" >&3
        read -r line <&3; printf "%s" "$line"' _ "$1" "$health" 2>/dev/null)
    [[ $line == HTTP/*" 200"* ]]
}

for number in "$n" "$first" "$wait_s"; do
    [[ $number =~ ^[0-9]+$ ]] || fail "expected whole numbers for N, PORT and WAIT_S, got '$number'"
done
((n >= 1)) || fail "N must be at least 1, got $n"
for ((i = 0; i < n; i++)); do
    listening $((first + i)) && fail "port $((first + i)) is taken; stop what listens there, or set PORT to another first port"
done
mkdir -p "$run_dir" || fail "can't make $run_dir"

started=no
trap '[[ $started == yes ]] || { N=$n PORT=$first RUN_DIR=$run_dir "$here/stop_multi_port.sh"; }' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

for ((i = 0; i < n; i++)); do
    port=$((first + i))
    gpu=${gpus[i]:-$i}
    line=${command//\{port\}/$port}
    line=${line//\{gpu\}/$gpu}
    CUDA_VISIBLE_DEVICES=$gpu setsid bash -c "exec $line" >"$run_dir/$port.log" 2>&1 </dev/null &
    echo $! >"$run_dir/$port.pid"
    ps -o lstart= -p $! >"$run_dir/$port.since"
done

deadline=$((SECONDS + wait_s))
for ((i = 0; i < n; i++)); do
    port=$((first + i))
    until healthy "$port"; do
        if ! kill -0 "$(cat "$run_dir/$port.pid")" 2>/dev/null; then
            tail -n 20 "$run_dir/$port.log" >&2
            fail "the server on port $port ended; its last lines are above ($run_dir/$port.log)"
        fi
        ((SECONDS < deadline)) || fail "port $port is not healthy after $wait_s s (see $run_dir/$port.log)"
        sleep 0.2
    done
    echo "port $port: healthy (pid $(cat "$run_dir/$port.pid"))"
done
started=yes
