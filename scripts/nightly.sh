#!/usr/bin/env bash
# Run a config from cron: its environment, one run at a time, a log for each day, and silence when all is well.
#
#   scripts/nightly.sh CONFIG [flags of `runner run`]
#   30 20 * * *  /opt/runner/scripts/nightly.sh /srv/runner/night.yaml       a line of a crontab
#
#   ENV_FILE=…          NAME=VALUE lines for the run, such as tokens, and for the variables below; default nightly.env
#                       beside CONFIG, if there is one
#   RUNNER=…            the command; default .venv/bin/runner of this repository, else the runner on PATH
#   LOG_DIR=…           holds NAME-YYYY-MM-DD.log and NAME.lock; default logs beside CONFIG (NAME is CONFIG's, no suffix)
#   KEEP_DAYS=30        older logs of this NAME are removed
#
# Exit code: the runner's own; 75 as well if this CONFIG is still at work, 2 if it can't begin. On 0 without a warning
# nothing is printed, otherwise what the runner said and where the log is. SIGTERM, SIGINT and SIGHUP are passed on to
# the runner and waited for.
set -u

say() { printf 'nightly: %s\n' "$1" >&2; }

fail() {
    say "$1"
    exit 2
}

# Read NAME=VALUE lines, for the runner alone but for our own variables. Nothing in them is run; quotes around a value
# are dropped, as systemd's EnvironmentFile= does.
settings=()
read_environment() {
    local line name value number=0
    while IFS= read -r line || [[ -n $line ]]; do
        number=$((number + 1))
        line=${line%$'\r'}
        ((number > 1)) || line=${line#$'\xef\xbb\xbf'}
        line=${line#"${line%%[![:space:]]*}"}
        [[ -z $line || $line == [#\;]* ]] && continue
        line=${line#export }
        name=${line%%=*}
        value=${line#*=}
        [[ $line == *=* && $name =~ ^[A-Za-z_][A-Za-z0-9_]*$ ]] || fail "$1: line $number: expected NAME=VALUE"
        [[ $value == \"*\" || $value == \'*\' ]] && ((${#value} > 1)) && value=${value:1:-1}
        case $name in
        RUNNER | LOG_DIR | KEEP_DAYS) printf -v "$name" %s "$value" ;;
        PATH | TZ | TMPDIR) export "$name=$value" ;;
        *) settings+=("$name=$value") ;;
        esac
    done <"$1"
}

config=${1:-}
[[ -n $config && $config != -* ]] || fail "expected nightly.sh CONFIG [flags of runner run], got '$*'"
shift
[[ -f $config && -r $config ]] || fail "$config: there is no such config, or it can't be read"
folder=$(dirname -- "$config")
name=$(basename -- "$config")

env_file=${ENV_FILE:-$folder/nightly.env}
if [[ -n ${ENV_FILE:-} || -e $env_file ]]; then
    [[ -f $env_file && -r $env_file ]] || fail "$env_file: there is no such file, or it can't be read"
    read_environment "$env_file"
fi

here=$(dirname -- "$(dirname -- "$(readlink -f -- "$0")")")
runner=${RUNNER:-$here/.venv/bin/runner}
[[ -n ${RUNNER:-} || -x $runner ]] || runner=runner
command -v -- "$runner" >/dev/null ||
    fail "there is no runner: neither $here/.venv/bin/runner nor one on PATH ($PATH); install it, or set RUNNER"
command -v flock >/dev/null || fail "there is no flock on PATH ($PATH); it comes with util-linux"
keep_days=${KEEP_DAYS:-30}
[[ $keep_days =~ ^[0-9]{1,5}$ ]] || fail "expected KEEP_DAYS to be a number of days, got '$keep_days'"

log_dir=${LOG_DIR:-$folder/logs}
stem=$log_dir/${name%.y*ml}
printf -v today '%(%F)T' -1
log=$stem-$today.log
{ mkdir -p -- "$log_dir" && : >>"$log"; } || fail "the log can't be written; make $log_dir writable, or set LOG_DIR"

exec 9<>"$stem.lock" || fail "$stem.lock can't be written"
if ! flock -n 9; then
    read -r holder <&9
    say "$config is still at work (process ${holder:-unknown}); nothing was begun. Log: $stem-*.log"
    exit 75
fi
: >"$stem.lock"
echo $$ >&9

printf -v now '%(%s)T' -1
printf -v oldest '%(%F)T' $((now - 10#$keep_days * 86400))
for old in "$stem"-[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9].log{,.*}; do
    [[ ${old:0:${#stem}+11} < $stem-$oldest ]] && rm -f -- "$old"
done

told=$(mktemp -d) || fail "no temporary folder can be made"
trap 'rm -rf -- "$told"' EXIT

# A signal from a terminal goes to the whole group: in a group of its own (-m) the runner hears it only once.
pid="" heard="" code=""
# shellcheck disable=SC2317  # called by the traps
pass_on() {
    heard=$1
    [[ -z $pid ]] || kill "-$1" "$pid" 2>/dev/null
}
trap 'pass_on TERM' TERM
trap 'pass_on INT' INT
trap 'pass_on HUP' HUP
set -m
env -- "${settings[@]}" "$runner" run "$config" --log-file "$log" "$@" >"$told/answer" 2>"$told/said" </dev/null &
pid=$!
[[ -z $heard ]] || kill "-$heard" "$pid" 2>/dev/null
while :; do
    heard=
    wait "$pid" 2>/dev/null
    ended=$?
    [[ -n $code && $ended == 127 ]] || code=$ended # 127: it had ended by the last look already
    [[ -n $heard ]] || break                       # else a signal ended the wait, not the runner
done

said=$(tail -n 20 -- "$told/said")
if ((code != 0)) && [[ -z $said ]]; then
    said="$name: $(tail -n 1 -- "$told/answer")"
    [[ -s $told/answer ]] || said="$name: the runner was killed, or could not begin"
fi
[[ -z $said ]] || printf '%s (exit code %s; log: %s)\n' "$said" "$code" "$log" >&2
cat -- "$told/said" "$told/answer" >>"$log"
printf '%(%F %T)T nightly: exit code %s\n' -1 "$code" >>"$log"
exit "$code"
