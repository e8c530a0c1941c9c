"""The longer texts of ``--help``."""

ABOUT = """\
Drive many generation endpoints from one YAML file, keep every one of them busy, and end with a verified result for
every prompt. Run the same command again and it does only what is not saved yet.
"""

EXAMPLES = """\
examples:
  runner init                                   write a commented runner.yaml to start from
  runner run runner.yaml                        do it; again: only what is missing
  runner run runner.yaml --dry-run              show what would be sent where
  runner generate --prompts-file prompts.txt --endpoint http://127.0.0.1:10006 \\
                  --endpoint http://127.0.0.1:10007 --seed 42
  runner status results --missing-file todo.txt

exit codes:
  0 every prompt has a verified result     1 some failed             2 wrong usage or config, nothing was sent
  3 a bug in runner     75 try again later     129 SIGHUP     130 SIGINT     143 SIGTERM
"""

RUN_EXAMPLES = """\
examples:
  runner run runner.yaml
  runner run runner.yaml --seed 7 --output-folder results-7
  runner run runner.yaml --endpoint http://gpu-box:10006 --set retry.attempts=5
  cat todo.txt | runner run runner.yaml --prompts-file -

stdout gets one line of JSON, stderr progress and log. Every flag wins over the YAML.
"""

GENERATE_EXAMPLES = """\
example:
  runner generate --prompts-file prompts.txt --endpoint http://127.0.0.1:10006 \\
                  --endpoint http://127.0.0.1:10007 --seed 42 --output-folder results
"""

MONITOR_EXAMPLES = """\
examples:
  runner monitor runner.yaml                    a table that stays up to date; Ctrl-C ends it
  runner monitor runner.yaml --once             one look, for scripts: exit code 1 if an endpoint is down
  runner monitor runner.yaml --json --every 60 >> endpoints.jsonl
  runner monitor --endpoint http://127.0.0.1:10006 --endpoint http://127.0.0.1:10007 --set protocol=404-mesh

If stdout is no terminal, a table (or a line of JSON) is printed at each look. Without --once the exit code is that
of the last look: 0 if all were up.
"""
