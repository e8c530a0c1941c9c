#!/usr/bin/env bash
# Does the demo of the cluster do what it says? Run the list twice in it and look at what is in the bucket.
set -eu
cd "$(dirname "$0")/.."

say() { echo "demo-cluster smoke: $1"; }

log=$(mktemp)
trap 'rm -f "$log"' EXIT
SECONDS_EACH=0.2 AGAIN=yes make demo-cluster | tee "$log"
grep -q '"success": true, "total": 12, "saved": 12, "skipped": 0' "$log" || { say "the first run did not save 12"; exit 1; }
grep -q ': 12 results (.*, each with size and SHA-256 as its ledger line says' "$log" || { say "the bucket does not hold what the ledger says"; exit 1; }
grep -q 'report.html: all 12 prompts have a verified result' "$log" || { say "no report was written"; exit 1; }
grep -q '<html' demo/cluster/report.html || { say "there is no copy of the report"; exit 1; }
grep -q '"success": true, "total": 12, "saved": 0, "skipped": 12' "$log" || { say "the second run did not skip all"; exit 1; }
for port in 10006 10007 10008 10009 10080 10086 10090; do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then say "something still listens on $port"; exit 1; fi
done
say "12 saved into the bucket, then 12 skipped, nothing left behind"
