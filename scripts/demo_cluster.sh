#!/usr/bin/env bash
# Beyond one machine, on one: a Dask scheduler and two workers ask four generation servers, and twelve results end in
# a bucket of an S3 server. `make demo-cluster` calls this after installing. A copy of the report is demo/cluster/report.html.
#
#   SECONDS_EACH=1      each generation takes at least so long, to rehearse a GPU
#
# All of it listens on loopback only, and has ended when this ends. The bucket lives in the memory of the S3 server: with
# KEEP=yes it all stays up until Ctrl-C, to try commands on it.
set -u
here=$(cd "$(dirname "$0")/.." && pwd)
cd "$here" || exit 1
python=${PYTHON:-python3}
bin=$(dirname "$python")
folder=demo/cluster
scheduler_port=10086
bucket_port=10090
image_port=10080
export RUN_DIR=$folder/run
export XDG_STATE_HOME=$here/$folder/state # where results wait for the bucket; nothing in your home is touched
export AWS_ENDPOINT_URL=http://127.0.0.1:$bucket_port AWS_DEFAULT_REGION=us-east-1
export AWS_ACCESS_KEY_ID=demo AWS_SECRET_ACCESS_KEY=demo
unset AWS_SESSION_TOKEN AWS_PROFILE
export AWS_EC2_METADATA_DISABLED=true AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null
url=s3://runner-demo/results
started=()

say() { echo "demo-cluster: $1" >&2; }
listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# shellcheck disable=SC2317  # called by the trap
clean_up() {
    trap '' INT TERM HUP
    local i
    for ((i = ${#started[@]} - 1; i >= 0; i--)); do # the workers before their scheduler, or they wait for each other
        end "${started[i]}"
    done
    [[ -d $RUN_DIR ]] && scripts/stop_multi_port.sh
}

# end PID: SIGTERM, and SIGKILL after 3 s
end() {
    kill -TERM "$1" 2>/dev/null || return
    local tenths
    for ((tenths = 0; tenths < 30; tenths++)); do
        kill -0 "$1" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL "$1" 2>/dev/null
    wait "$1" 2>/dev/null
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# begin NAME COMMAND…: start what stays until the end, in a session of its own; Ctrl-C is for this script alone
begin() {
    local name=$1
    shift
    setsid "$@" >"$folder/$name.log" 2>&1 </dev/null &
    started+=($!)
}

# until_up NAME PORT: wait until what was begun last listens
until_up() {
    local deadline=$((SECONDS + 30))
    until listening "$2"; do
        if ! kill -0 "${started[-1]}" 2>/dev/null || ((SECONDS >= deadline)); then
            tail -n 20 "$folder/$1.log" >&2
            say "$1 does not listen on port $2; its last lines are above ($folder/$1.log)"
            exit 1
        fi
        sleep 0.1
    done
}

for port in $scheduler_port $bucket_port $image_port 10006 10007 10008 10009; do
    if listening "$port"; then
        say "port $port is taken; stop what listens there and try again"
        exit 1
    fi
done
rm -rf "${folder:?}" # the bucket of an earlier demo is gone, and so is what was known of it
mkdir -p "$folder" || exit 1

echo "== A scheduler, two workers, an S3 server, four generation servers"
begin images "$python" -m http.server "$image_port" --bind 127.0.0.1 --directory configs/images
begin bucket "$bin/moto_server" -H 127.0.0.1 -p "$bucket_port"
until_up bucket "$bucket_port"
begin scheduler "$bin/dask" scheduler --host 127.0.0.1 --port "$scheduler_port" --no-dashboard
until_up scheduler "$scheduler_port"
for name in worker-1 worker-2; do
    begin "$name" "$bin/dask" worker "tcp://127.0.0.1:$scheduler_port" --name "$name" --host 127.0.0.1 --no-dashboard \
        --no-nanny --local-directory "$folder"
done
N=4 PORT=10006 SERVER_COMMAND="$python -m runner serve --port {port} --seconds ${SECONDS_EACH:-1}" \
    scripts/start_multi_port.sh || exit 1
"$python" scripts/look_in_bucket.py make "$url" || exit 1

echo "== runner run configs/cluster.yaml"
"$python" -m runner run configs/cluster.yaml --log-level info
code=$?

echo "== runner status $url"
"$python" -m runner status "$url" || code=1
echo "== runner report $url"
"$python" -m runner report "$url" || code=1 # while the image host can still be asked
"$python" scripts/look_in_bucket.py check "$url" "$folder" || code=1

if [[ ${AGAIN:-} ]]; then
    echo "== The same command again"
    "$python" -m runner run configs/cluster.yaml --log-level info || code=1
fi
if [[ ${KEEP:-} ]]; then
    echo "All of it stays up until Ctrl-C. In another terminal:"
    echo "  export AWS_ENDPOINT_URL=$AWS_ENDPOINT_URL AWS_ACCESS_KEY_ID=demo AWS_SECRET_ACCESS_KEY=demo"
    echo "  $bin/runner status $url"
    wait "${started[@]}"
fi
exit "$code"
