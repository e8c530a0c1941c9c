#!/usr/bin/env bash
# The whole thing on one machine: four generation servers on ports 10006 to 10009 turn twelve real images, fetched over
# HTTP, into 3D splat files. `make demo` calls this after installing. The results are in demo/results, and report.html.
#
#   SECONDS_EACH=1      each generation takes at least so long, to rehearse a GPU
set -u
here=$(cd "$(dirname "$0")/.." && pwd)
cd "$here" || exit 1
python=${PYTHON:-python3}
export RUN_DIR=demo/run
image_port=10080
image_host=

# shellcheck disable=SC2317  # called by the trap
clean_up() {
    trap '' INT TERM HUP
    [[ -n $image_host ]] && kill "$image_host" 2>/dev/null && wait "$image_host" 2>/dev/null
    scripts/stop_multi_port.sh
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

mkdir -p demo || exit 1
if (exec 3<>"/dev/tcp/127.0.0.1/$image_port") 2>/dev/null; then
    echo "demo: port $image_port is taken; the demo's image host needs it" >&2
    exit 1
fi
"$python" -m http.server "$image_port" --bind 127.0.0.1 --directory configs/images >demo/images.log 2>&1 &
image_host=$!

echo "== Four generation servers"
N=4 PORT=10006 SERVER_COMMAND="$python -m runner serve --port {port} --seconds ${SECONDS_EACH:-1}" \
    scripts/start_multi_port.sh || exit 1

echo "== runner run configs/demo.yaml"
"$python" -m runner run configs/demo.yaml --log-level info
code=$?

echo "== Results"
if [[ -f demo/results/.runner/ledger.jsonl ]]; then
    "$python" scripts/show_results.py demo/results
    "$python" -m runner report demo/results || code=1 # while the image host can still be asked
fi
exit "$code"
