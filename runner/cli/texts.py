"""The longer texts of ``--help``: a page for every command, read by the parser and by ``make docs``.

Lines are at most 80 columns wide. The lines of ``examples`` must be commands that the parser takes.
"""

from __future__ import annotations

from typing import NamedTuple

ABOUT = """\
Drive many generation endpoints from one YAML file, keep every one of them busy,
and end with a verified result for every prompt. Run the same command again and
it does only what is not saved yet.

"runner COMMAND --help" is the manual of a command.
"""

EXIT_STATUS = """\
0    every prompt has a verified result
1    some failed, or the disk refused
2    wrong usage or config; nothing was sent
3    a bug in runner
75   try again later, the rest is pending: another run holds the folder, the
     time window is over, or no endpoint could be used
129, 130, 143
     SIGHUP, SIGINT, SIGTERM; the rest is pending
"""


class Page(NamedTuple):
    """What a command's ``--help`` says besides its flags. ``synopsis`` stands behind ``runner NAME``."""

    synopsis: str
    about: str
    exit_status: str
    examples: str
    see_also: str
    files: str = ""
    environment: str = ""

    def closing(self) -> str:
        """Return the sections that stand behind the flags."""
        return sections(
            {
                "files": self.files,
                "exit status": self.exit_status,
                "environment": self.environment,
                "examples": self.examples,
                "see also": self.see_also,
            }
        )


def sections(named: dict[str, str]) -> str:
    """Return the texts that are not empty, each indented under its title, as argparse does with flags."""
    blocks = []
    for title, text in named.items():
        if text:
            lines = "".join(f"  {line}\n" if line else "\n" for line in text.splitlines())
            blocks.append(f"{title}:\n{lines}")
    return "\n".join(blocks)


_CONFIG_ENVIRONMENT = """\
NAME        stands in for ${NAME} in the config; an unset one is an error
"""

_ARRAY_ENVIRONMENT = """\
SLURM_ARRAY_TASK_ID, JOB_COMPLETION_INDEX, AWS_BATCH_JOB_ARRAY_INDEX
            say which shard --shard auto/8 is
"""

_RUN_ENVIRONMENT = f"""\
{_CONFIG_ENVIRONMENT}{_ARRAY_ENVIRONMENT}http_proxy, https_proxy, no_proxy
            are for images and lists that are downloaded, not for endpoints
"""

_RUN_FILES = """\
DIR/KEY.ply, DIR/KEY.glb ...  the results, each whole or absent
DIR/.runner/ledger.jsonl      what came of every prompt; never edit it
DIR/.runner/summary.json      the last run: counts, endpoints, failed prompts
DIR/.runner/runs.jsonl        all runs: when each began, outages, how it ended
DIR/.runner/config.yaml       its config with every default, without secrets
DIR/.runner/run.log           the log of all runs
DIR/.runner/shards/3-of-8/    the same of --shard 3/8, and what is on its way
"""

MAIN = sections(
    {
        "exit status": EXIT_STATUS,
        "examples": """\
runner init
runner run runner.yaml --dry-run
runner run runner.yaml
runner generate --prompts-file prompts.txt --seed 42 \\
    --endpoint http://127.0.0.1:10006 --endpoint http://127.0.0.1:10007
runner status results --missing-file todo.txt
""",
        "see also": "docs/quick-reference.md, docs/cli.md, docs/config.md\n",
    }
)

RUN = Page(
    synopsis="CONFIG [--dry-run] [--overwrite] [flags]",
    about="""\
Bring every prompt of a config to a verified result on disk. What is saved is
skipped, what failed is tried again, so the same command goes on after a crash,
a failure or the end of a time window. Every flag wins over the YAML. stdout
gets one line of JSON, stderr the progress and the log; where stderr is no
terminal, as in cron, it gets one line if anything is wrong, else nothing.
""",
    files="CONFIG                        its relative paths are relative to it\n" + _RUN_FILES,
    exit_status=EXIT_STATUS,
    environment=_RUN_ENVIRONMENT,
    examples="""\
runner run runner.yaml
runner run runner.yaml --dry-run
runner run runner.yaml --seed 7 --output-folder results-7
runner run runner.yaml --endpoint http://gpu-box:10006 --set retry.attempts=5
runner run runner.yaml --until 06:30 --log-file nightly.log
runner run runner.yaml --shard 3/8
cat todo.txt | runner run runner.yaml --prompts-file -
""",
    see_also="docs/config.md, docs/reference.md, docs/reliability.md,\ndocs/troubleshooting.md\n",
)

GENERATE = Page(
    synopsis="--prompts-file F --endpoint URL [--endpoint ...] [flags]",
    about="""\
Do the same as "runner run" without a config: the flags say it all, and what
they don't say has its default. --set reaches every other option of the YAML.
The log goes to stderr in the ancestor's words, terminal or not.
""",
    files=_RUN_FILES,
    exit_status=EXIT_STATUS,
    environment=_RUN_ENVIRONMENT.removeprefix(_CONFIG_ENVIRONMENT),
    examples="""\
runner generate --prompts-file prompts.txt --seed 42 \\
    --endpoint http://127.0.0.1:10006 --endpoint http://127.0.0.1:10007
runner generate --prompts-file images/ --endpoint http://127.0.0.1:8081 \\
    --set protocol=hunyuan3d --output-folder meshes
""",
    see_also="docs/config.md, docs/migrating.md\n",
)

PLAN = Page(
    synopsis="CONFIG [--json] [flags]",
    about="""\
Show for every prompt its index, its key, its endpoint and whether it is saved,
and how much is to do for each endpoint. Nothing is sent and nothing written.
""",
    files="CONFIG  its relative paths are relative to it\n",
    exit_status="0    shown\n2    wrong usage, config or prompts\n",
    environment=_CONFIG_ENVIRONMENT,
    examples="""\
runner plan runner.yaml
runner plan runner.yaml --json --prompts-file todo.txt
""",
    see_also="docs/config.md (index and key)\n",
)

CHECK = Page(
    synopsis="CONFIG [--json] [flags]",
    about="""\
Check a config and its prompts, ask every endpoint for its health and version,
and tell from its answer to an empty form whether it speaks the protocol.
Nothing is generated.
""",
    files="CONFIG  its relative paths are relative to it\n",
    exit_status="""\
0    every endpoint is healthy and speaks the protocol, as far as one can tell
1    one is not healthy, or does not
2    wrong usage, config or prompts
""",
    environment=_CONFIG_ENVIRONMENT,
    examples="""\
runner check runner.yaml
runner check runner.yaml --json
runner check runner.yaml --set protocol=hunyuan3d
""",
    see_also="docs/servers.md, docs/protocol.md, docs/multi-port.md\n",
)

PROTOCOLS = Page(
    synopsis="[NAME]",
    about="""\
List the kinds of servers that are known by name, or print one as YAML, to copy
under "protocol:" and change.
""",
    exit_status="0    printed\n2    there is no preset of that name\n",
    examples="""\
runner protocols
runner protocols comfyui > mine.yaml
""",
    see_also="docs/servers.md, docs/protocol.md\n",
)

STATUS = Page(
    synopsis="FOLDER [--json] [--missing-file F]",
    about="""\
Count what is saved, failed, missing and unknown in an output folder, by the
list of its last run, and write what is still to do as a prompts file: never
over a list, a config, a result or what is in .runner. Of runs with --shard it
counts the whole list, and says of each shard how it stands and how it ended.
""",
    files="""\
FOLDER/.runner  is read: the ledger, the last run's config and list
F               is written
""",
    exit_status="""\
0    every prompt of the last run has its result
1    some have none, or FOLDER can't be read
2    wrong usage, F may not be written, or FOLDER is no output folder
""",
    examples="""\
runner status results
runner status results --json
runner status results --missing-file todo.txt
""",
    see_also="docs/config.md (results on disk), docs/troubleshooting.md\n",
)

REPORT = Page(
    synopsis="FOLDER [--format html|text|json|md] [--output F]",
    about="""\
Make a page to look at of what happened in an output folder: how the prompts
stand, what each endpoint did and when it was idle and why, how long things
took, a thumbnail of every result with a 3D view, why prompts failed, and what
changed since the run before. It is one file that needs no network.

Results are drawn on the CPU, and the drawings kept for the next report; images
of prompts are fetched again from their URLs (not with --offline).

Runs of shards that belong together are told of as one.

text is what fits a terminal, md the same as Markdown, json all of it as one
object. A run may be going on; a killed one is told of as well.
""",
    files="""\
FOLDER/report.html       is written, whole or not at all
FOLDER/.runner/pictures  keeps the drawings; it may be removed at any time
FOLDER/.runner           ledger, trail of the runs and config are read
""",
    exit_status="""\
0    written, or printed
1    FOLDER can't be read, or the page can't be written
2    wrong usage, no run was ever in FOLDER, or html lacks a library
""",
    examples="""\
runner report results
runner report results --format text
runner report results --output ~/public/night.html --offline
runner report results --format md --output night.md
""",
    see_also="docs/report.md, docs/operations.md\n",
)

VERIFY = Page(
    synopsis="FOLDER [--json] [--discard]",
    about="""\
Read every result again: its structure, its size and its SHA-256 against the
ledger. What is gone of prompts that are in the list no more is only counted.
--discard removes the damaged ones, so that the next run makes them again.
""",
    files="FOLDER/.runner/ledger.jsonl  says what every result was when it was saved\n",
    exit_status="""\
0    every result is whole
1    one is damaged or missing, the ledger is gone or has lines that can't be
     read, or FOLDER can't be read
2    wrong usage, or FOLDER is no output folder
75   with --discard: a run is at work in FOLDER
""",
    examples="""\
runner verify results
runner verify results --json
runner verify results --discard
""",
    see_also="docs/config.md (what is verified), docs/troubleshooting.md\n",
)

PRUNE = Page(
    synopsis="FOLDER [--yes] [--only KIND] [--json]",
    about="""\
List the files of an output folder that belong to no prompt of the last run:
results of earlier lists, files the ledger does not know, unfinished files of
runs that died. --yes removes them, if the list is still that of the last run. A
file that is named like a result of one of the current prompts stays, whatever
the ledger says; so do folders, hidden files, the config and what it names.

If results may be those of another list that was run in the folder, or are more
than those that stay, --yes asks for --only earlier; if the files that the
ledger does not know are more than those that stay, for --only unknown. With
--only such files are removed in spite of that.
""",
    files="""\
FOLDER/.runner/ledger.jsonl  says which file belongs to which prompt
FOLDER/.runner/lists.jsonl   says which lists were run
""",
    exit_status="""\
0    listed, or removed
1    one could not be removed, or FOLDER can't be read
2    wrong usage, the prompts of the last run can't be read or have changed,
     or --yes asks for --only; nothing was removed
75   with --yes: a run is at work in FOLDER
""",
    examples="""\
runner prune results
runner prune results --yes
runner prune results --only temp --yes
""",
    see_also="docs/config.md (results on disk), docs/operations.md\n",
)

UPLOAD = Page(
    synopsis="FOLDER [URL] [--json]",
    about="""\
Upload the saved results of an output folder that are not in a bucket yet, each
checked there by size and checksum, then the ledger and what else of .runner a
reader needs, and the report if there is one. It may be ended and run again at
any time: it goes on where it was. With upload.to in the config, a run does the
same as its results arrive. FOLDER is one of this machine; that of a run with a
URL for its output folder is in its bucket already.

What is up is remembered in .runner/uploads.jsonl; an object that was removed
from the bucket is noticed, and uploaded again. Credentials come from the
environment or the usual profile files. It needs the extra:
pip install 'multiport-runner[s3]'.
""",
    files="""\
FOLDER/.runner/ledger.jsonl   says which results there are
FOLDER/.runner/uploads.jsonl  says what is up; lines are added to it
""",
    exit_status="""\
0    every saved result is there
1    some are not: the bucket or the disk refused
2    wrong usage, FOLDER is no output folder, or the extra is missing
75   a run is at work in FOLDER
129, 130, 143
     SIGHUP, SIGINT, SIGTERM; what was in flight is not there
""",
    environment="""\
AWS_PROFILE, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
                     who asks, for s3://
AWS_ENDPOINT_URL_S3  where the store is, if it is not Amazon's
""",
    examples="""\
runner upload results s3://bucket/night
runner upload results s3://bucket/night --json
runner upload results
""",
    see_also="docs/config.md (a copy in a bucket), docs/operations.md\n",
)

MONITOR = Page(
    synopsis="[CONFIG] [--endpoint URL] [--folder DIR] [--once] [--json]",
    about="""\
Show how the endpoints are: health, version, latency, last error and, while a
run is at work in a folder, what each one does for it. On a terminal it is a
table that stays up to date until Ctrl-C; elsewhere a table, or a line of JSON,
at each look. --once looks once, for scripts.
""",
    files="DIR/.runner/progress.json  is read while a run is at work in DIR\n",
    exit_status="""\
0    every endpoint was up at the last look
1    one was down
2    wrong usage or config
""",
    environment=_CONFIG_ENVIRONMENT,
    examples="""\
runner monitor runner.yaml
runner monitor runner.yaml --once
runner monitor runner.yaml --json --every 60 > endpoints.jsonl
runner monitor --endpoint http://127.0.0.1:10006 --set protocol=404-mesh
""",
    see_also="docs/multi-port.md, docs/operations.md\n",
)

SERVE = Page(
    synopsis="[--port N] [--host HOST] [--seconds S]",
    about="""\
Run the reference generation server: a real, small image-to-splat generator on
the CPU that answers as 404-splat does. It runs until SIGINT or SIGTERM. It
needs the extra: pip install 'multiport-runner[server]'.
""",
    exit_status="""\
0    it was told to stop
1    it can't listen on that port
2    wrong usage, or the extra is missing
""",
    examples="""\
runner serve
runner serve --port 10007 --seconds 5
""",
    see_also="docs/servers.md (the reference server), docs/multi-port.md\n",
)

INIT = Page(
    synopsis="[FILE]",
    about="""\
Write a config with every common option explained, to edit. An existing file is
never replaced.
""",
    files="FILE  is written\n",
    exit_status="0    written\n2    FILE exists, or can't be written\n",
    examples="""\
runner init
runner init night.yaml
runner init -
""",
    see_also="docs/reference.md, docs/config.md\n",
)

SCHEMA = Page(
    synopsis="",
    about="""\
Print the JSON schema of the config, with which an editor completes and checks
it as you type.
""",
    exit_status="0    printed\n",
    examples="""\
runner schema > runner.schema.json
""",
    see_also="docs/reference.md\n",
)

COMPLETION = Page(
    synopsis="bash|zsh|fish",
    about="""\
Print a script that lets the shell complete commands, flags, files and names of
presets at TAB. It starts no Python then. After an update of runner write it
again. It needs the extra: pip install 'multiport-runner[completion]'.
""",
    files="""\
~/.local/share/bash-completion/completions/runner  where bash looks for it
~/.config/fish/completions/runner.fish             where fish looks for it
""",
    exit_status="0    printed\n2    wrong usage, or the extra is missing\n",
    examples="""\
runner completion bash > ~/.local/share/bash-completion/completions/runner
runner completion fish > ~/.config/fish/completions/runner.fish
runner completion zsh > ~/.zsh/_runner
""",
    see_also="docs/quick-reference.md (zsh: a folder of $fpath)\n",
)
