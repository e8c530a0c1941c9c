#!/usr/bin/env bash
# Does the demo do what the README says? Run it twice in a clean state and look at what is there afterwards.
set -eu
cd "$(dirname "$0")/.."
rm -rf demo/results demo/run

say() { echo "demo smoke: $1"; }
run() { SECONDS_EACH=0.2 make demo | tee "$1"; }

log=$(mktemp)
trap 'rm -f "$log"' EXIT
run "$log"
grep -q '"success": true, "total": 12, "saved": 12, "skipped": 0' "$log" || { say "the first run did not save 12"; exit 1; }
count=$(find demo/results -name '*.ply' | wc -l)
[ "$count" -eq 12 ] || { say "expected 12 PLY files, found $count"; exit 1; }
grep -q 'demo/results/report.html: all 12 prompts have a verified result' "$log" || { say "no report was written"; exit 1; }
grep -q '^note: ' "$log" && { say "the report lacks something"; exit 1; }
run "$log"
grep -q '"success": true, "total": 12, "saved": 0, "skipped": 12' "$log" || { say "the second run did not skip all"; exit 1; }
for port in 10006 10007 10008 10009 10080; do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then say "something still listens on $port"; exit 1; fi
done
say "12 saved, then 12 skipped, nothing left behind"
