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

STATUS_EXAMPLES = """\
examples:
  runner status results
  runner status results --missing-file todo.txt
  runner status results --json | jq .causes

exit codes: 0 every prompt has its result, 1 not every one, 2 no output folder of a run
"""

VERIFY_EXAMPLES = """\
examples:
  runner verify results
  runner verify results --discard && echo whole || runner run runner.yaml

exit codes: 0 all are whole, 1 not all, 2 no output folder of a run, 75 (--discard) a run is at work in it
"""

PRUNE_EXAMPLES = """\
examples:
  runner prune results                   list them, and remove nothing
  runner prune results --yes             remove them
  runner prune results --only temp --yes

A file that is named like a result of one of the current prompts stays, whatever the ledger says; so do folders,
hidden files and what the config names. The current prompts are those of the last run in the folder.
exit codes: 0 done, 1 one could not be removed, 2 the prompts can't be read, 75 (--yes) a run is at work in it
"""
