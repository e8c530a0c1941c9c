#!/usr/bin/env python3
"""Prove that cron and a systemd timer finish a list over three nights, run as docs/operations.md says.

    sudo scripts/prove_nights.py [--only cron|systemd] [--flags FLAGS]

Two machines are built out of this one: the same files, but what they write goes into memory and is gone at the end,
with processes and a network of their own. In each the guide's commands are run on a fresh clone of the last commit,
with four reference servers on ports 10006 to 10009 and a list that is too long for one window. The one then runs
cron with the guide's crontab, whose five time fields are replaced so that it begins each minute, and a sendmail that
writes each mail into a file; the other runs systemd with the units, whose OnCalendar is replaced as the guide says. A
night is a minute, or half of one. Exit code 1 if a claim fails, 2 if it can't be tried here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes
from functools import partial
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
GUIDE = REPOSITORY / "docs/operations.md"
NEEDED = ("unshare", "nsenter", "mount", "ip", "git", "make", "useradd", "flock", "setpriv")
SYSTEMD = "/lib/systemd/systemd"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

NIGHTS = 3
GENERATION_S = 4
WINDOW_S = 17
"""An endpoint generates three or four prompts in it: not 9 in two nights, but in three."""

COPIES = 3
"""Of the twelve images: nine prompts for each endpoint."""

ENDPOINTS = 4
CALENDAR = "*:*:00/30"
UNIT = "runner-nightly@night"

STOP = threading.Event()
"""Set by a signal: every wait then ends."""

SET_UP = r"""
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mkdir -p mnt/source
mount --bind "$2" mnt/source
mount --rbind /dev dev
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup || [ -z "$3" ]
mount -t tmpfs tmpfs run
ip link set lo up
# Of this machine's own jobs and services none is wanted.
rm -rf var/spool/cron/crontabs/* etc/cron.d/* etc/crontab etc/systemd/system/*.wants
for unit in systemd-sysctl.service systemd-modules-load.service systemd-binfmt.service systemd-remount-fs.service \
    systemd-udevd.service systemd-udev-trigger.service systemd-udevd-control.socket systemd-udevd-kernel.socket \
    proc-sys-fs-binfmt_misc.automount sys-kernel-debug.mount sys-kernel-tracing.mount systemd-tmpfiles-clean.timer; do
    ln -sf /dev/null "etc/systemd/system/$unit"
done
[ -z "$3" ] || exec chroot . env -i container=nights "PATH=$4" "$3" --system --unit=basic.target --show-status=false
exec chroot . sleep infinity
"""

SENDMAIL = """#!/bin/sh
exec cat >"$(mktemp /var/mails/XXXXXX)"
"""


class Failed(Exception):
    """Something that must work for the proof did not."""


class Machine:
    """A copy of this machine with its own processes, network, /run, and whatever it writes; ``first`` is its init."""

    def __init__(self, name: str, folder: Path, cgroup: Path | None, first: str) -> None:
        self.name = name
        self._begun = time.monotonic()
        join = f'echo $$ >"{cgroup}/cgroup.procs"; ' if cgroup else ""
        own = ["--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc", "--net", "--cgroup"]
        command = [
            "bash",
            "-c",
            join + 'exec setpriv --pdeathsig KILL unshare "$@"',
            "_",
            *own,
            "--propagation",
            "private",
        ]
        command += ["bash", "-c", SET_UP, "_", str(folder), str(REPOSITORY), first, SYSTEM_PATH]
        self._log = open(folder.with_suffix(".log"), "w+b")  # noqa: SIM115 - closed in stop()
        self._outside = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        self._pid = wait_for("the machine's first process", self._first_pid, 10)
        wait_for("the machine's files", lambda: self.path("/mnt/source/docs").exists(), 10)

    def _first_pid(self) -> int:
        if self._outside.poll() is not None:
            self._log.seek(0)
            raise Failed(f"{self.name}: the machine ended: {self._log.read().decode(errors='replace').strip()}")
        pid = self._outside.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def path(self, inside: str) -> Path:
        return Path(f"/proc/{self._pid}/root{inside}")

    def command(self, line: str, *, outside_network: bool = False) -> list[str]:
        """Return the command that runs a line of shell in the machine."""
        enter = ["nsenter", "-t", str(self._pid), "-m", "-p", "-u", "-i", "-r", "-w", "-C"]
        return [*enter, *([] if outside_network else ["-n"]), "--", "bash", "-c", f"cd /; {line}"]

    def sh(self, line: str, *, outside_network: bool = False, check: bool = True) -> str:
        """Run a line of shell as root and return what it prints."""
        environment = {**os.environ, "PATH": SYSTEM_PATH}
        command = self.command(line, outside_network=outside_network)
        done = subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
        if check and done.returncode:
            raise Failed(
                f"{self.name}: {line}: exit code {done.returncode}: {done.stderr[-2000:]}{done.stdout[-500:]}"
            )
        return done.stdout

    def say(self, what: str) -> None:
        print(f"{time.monotonic() - self._begun:5.0f} s  {self.name}: {what}", file=sys.stderr, flush=True)

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(
                self._pid, signal.SIGKILL
            )  # the first process; the kernel kills all others of the machine with it
        self._outside.wait()
        self._log.close()


@contextmanager
def machine(name: str, where: Path, first: str = "") -> Iterator[Machine]:
    """Build a machine, and leave nothing of it behind."""
    (where / name).mkdir()
    cgroup = _cgroup(name)
    built = None
    try:
        built = Machine(name, where / name, cgroup, first)
        yield built
    finally:
        if built:
            built.stop()
        if cgroup:
            _remove(cgroup)


def _cgroup(name: str) -> Path | None:
    """Make a control group for a machine, so that its systemd is the root of what it sees."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mounted, kind, *_ = line.split()
        if kind == "cgroup2":
            made = Path(mounted) / f"nights-{name}-{os.getpid()}"
            made.mkdir()
            return made
    return None


def _remove(cgroup: Path) -> None:
    for folder, _, _ in os.walk(cgroup, topdown=False):
        for _ in range(50):  # the last processes of a group may still be ending
            try:
                os.rmdir(folder)
                break
            except OSError:
                time.sleep(0.1)


def wait_for(what: str, look: Callable[[], Any], timeout_s: float) -> Any:
    """Look again and again, until there is something. Raises Failed."""
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        if STOP.wait(0.1):
            raise Failed("stopped by a signal")
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not there after {timeout_s:.0f} s")
    return found


@dataclass
class Night:
    """What one night left: its exit code, the counts of its answer, and what it said to whoever looks later."""

    code: int
    saved: int
    pending: int
    said: str


@dataclass
class Proof:
    """What was seen on one machine."""

    nights: list[Night] = field(default_factory=list)
    claims: list[tuple[str, bool]] = field(default_factory=list)

    def claim(self, what: str, holds: bool) -> None:
        self.claims.append((what, holds))


def guide_blocks(language: str) -> list[str]:
    """Return the guide's blocks of a language, in their order."""
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


def as_root(line: str) -> str:
    """Return a line of the guide for a machine where we are root, without sudo.

    >>> as_root("sudo -u runner ls"), as_root("sudo ls")
    ('runuser -u runner -- ls', 'ls')
    """
    return line.replace("sudo -u runner ", "runuser -u runner -- ").replace("sudo ", "")


def prepared(built: Machine) -> None:
    """Install as the guide says, and lay the config, its images and its servers ready."""
    install, secrets, try_it = guide_blocks("console")[:3]
    for line in install.splitlines():
        built.sh(as_root(line).replace("REPOSITORY", "/mnt/source"), outside_network=True)
    built.say("cloned and installed")
    home = built.path("/srv/runner")
    (home / "images").mkdir()
    for image in sorted((REPOSITORY / "configs/images").glob("*.png")):
        for number in range(COPIES):
            shutil.copy(image, home / "images" / f"{image.stem}-{number}.png")
    endpoints = [
        {"url": f"http://127.0.0.1:{10006 + i}", "headers": {"X-Token": "${TOKEN}"}} for i in range(ENDPOINTS)
    ]
    config = {"endpoints": endpoints, "prompts": "images", "output_folder": "results", "max_runtime_s": WINDOW_S}
    (home / "night.yaml").write_text(json.dumps(config))
    built.sh("chown -R runner: /srv/runner")
    built.sh(as_root(secrets.splitlines()[0]))
    (home / "nightly.env").write_text("TOKEN=known only to the night\n")
    if said := built.sh(f"{as_root(try_it.strip())} 2>&1"):
        raise Failed(f"{built.name}: the guide's dry run says: {said}")
    built.sh("rm -r /srv/runner/logs")
    serve = f".venv/bin/python -m runner serve --port {{port}} --seconds {GENERATION_S}"
    built.sh(f"cd /opt/runner; N={ENDPOINTS} SERVER_COMMAND='{serve}' scripts/start_multi_port.sh")
    built.say(f"{ENDPOINTS} servers are healthy")


def by_cron(where: Path, flags: str) -> Proof:
    """Three nights by cron: the guide's crontab, a night a minute."""
    proof = Proof()
    with machine("cron", where) as built:
        prepared(built)
        built.path("/var/mails").mkdir()
        built.path("/var/mails").chmod(0o1777)
        built.path("/usr/sbin/sendmail").unlink(missing_ok=True)
        built.path("/usr/sbin/sendmail").write_text(SENDMAIL)
        built.path("/usr/sbin/sendmail").chmod(0o755)
        (crontab,) = guide_blocks("crontab")
        crontab, replaced = re.subn(
            r"^\S+ \S+ \S+ \S+ \S+(  .*)$", rf"* * * * *\1 {flags}".rstrip(), crontab, flags=re.M
        )
        proof.claim("the guide has one crontab line", replaced == 1)
        built.path("/tmp/crontab").write_text(crontab)
        built.sh("crontab -u runner /tmp/crontab")
        daemon = subprocess.Popen(built.command("exec cron -f"), stdin=subprocess.DEVNULL)
        try:
            for number in range(1, NIGHTS + 1):
                proof.nights.append(_night_by_cron(built, number))
            built.sh("crontab -u runner -r")
        finally:
            daemon.kill()
            daemon.wait()
        for number, night in enumerate(proof.nights, 1):
            if number < NIGHTS:
                is_one_line = night.said.count("\n") == 1 and "(exit code 75; log: " in night.said
                says = "pending" in night.said and re.search(rf"\b{night.pending}\b", night.said)
                proof.claim(
                    f"the mail of night {number} is one line that says how much is pending",
                    bool(is_one_line and says),
                )
            else:
                proof.claim(f"night {number} sends no mail", night.said == "")
        _check_results(built, proof)
    return proof


def _night_by_cron(built: Machine, number: int) -> Night:
    def log() -> str:
        return "".join(one.read_text() for one in sorted(built.path("/srv/runner/logs").glob("night-*.log")))

    wait_for(f"the end of night {number}", lambda: log().count("nightly: exit code") == number, 130)
    time.sleep(2)  # cron mails when the command has ended
    mails = sorted(built.path("/var/mails").iterdir())
    said = "".join(str(message_from_bytes(mail.read_bytes()).get_payload()) for mail in mails)
    for mail in mails:
        mail.unlink()
    code = int(re.findall(r"nightly: exit code (\d+)", log())[-1])
    return _night(built, number, code, log(), said)


def by_systemd(where: Path, flags: str) -> Proof:
    """Three nights by a systemd timer: the units, another OnCalendar."""
    proof = Proof()
    with machine("systemd", where, SYSTEMD) as built:
        prepared(built)
        install, shown = (block for block in guide_blocks("console") if "systemctl" in block)
        (drop_in,) = guide_blocks("ini")
        drop_in, replaced = re.subn(r"(?m)^OnCalendar=.+$", f"OnCalendar={CALENDAR}", drop_in)
        proof.claim("the guide replaces OnCalendar once", replaced == 1)
        folder = built.path(f"/etc/systemd/system/{UNIT}.timer.d")
        folder.mkdir()
        (folder / "override.conf").write_text(drop_in)  # what systemctl edit does
        wait_for("systemd", lambda: built.sh("systemctl is-active basic.target", check=False) == "active\n", 30)
        for line in as_root(install).splitlines():
            if flags and "daemon-reload" in line:
                built.sh(f"sed -i '/^ExecStart=/s/$/ {flags}/' /etc/systemd/system/runner-nightly@.service")
            built.sh(line)
        verified = built.sh(f"systemd-analyze verify {UNIT}.timer {UNIT}.service 2>&1", check=False)
        proof.claim("systemd-analyze verify finds nothing", verified == "")
        state: dict[str, str] = {}
        for number in range(1, NIGHTS + 1):
            before = state.get("ExecMainExitTimestampMonotonic", "0")
            state = wait_for(f"the end of night {number}", partial(_ended, built, before), 90)
            journal = built.sh(f"journalctl -u {UNIT} -o cat _SYSTEMD_INVOCATION_ID={state['InvocationID']}")
            night = _night(built, number, int(state["ExecMainStatus"]), journal, "")
            night.said = "".join(line for line in journal.splitlines(True) if not line.startswith("{"))
            proof.nights.append(night)
            proof.claim(f"night {number} is no failure for systemd", state["Result"] == "success")
        proof.claim("the timer is listed as the guide says", f"{UNIT}.timer" in built.sh(shown.splitlines()[0]))
        built.sh(f"systemctl disable --now {UNIT}.timer")
        _check_results(built, proof)
        _stop_one(built, proof)
    return proof


def _stop_one(built: Machine, proof: Proof) -> None:
    """Begin another config, as the guide says, and stop it while its first four generations are going on."""
    config = json.loads(built.path("/srv/runner/night.yaml").read_text())
    built.path("/srv/runner/another.yaml").write_text(json.dumps(config | {"output_folder": "another"}))
    another = UNIT.replace("@night", "@another")
    log = built.path("/srv/runner/another/.runner/run.log")
    built.sh(f"systemctl start --no-block {another}.service")
    wait_for("four generations", lambda: log.exists() and log.read_text().count("→ endpoint port") >= ENDPOINTS, 20)
    time.sleep(GENERATION_S / 2)  # the requests are sent by then, and not answered
    built.sh(f"systemctl stop {another}.service")
    state = built.sh(f"systemctl is-failed {another}.service", check=False).strip()
    summary = json.loads((log.parent / "summary.json").read_text())
    built.say(f"a night that was stopped: {state}, {summary['saved']} saved, {summary['pending']} pending")
    proof.claim("a night that is stopped is no failure", (summary["stopped"], state) == ("SIGTERM", "inactive"))
    proof.claim(
        "what it had in flight was finished, the rest is pending",
        (summary["saved"], summary["failed"]) == (ENDPOINTS, 0),
    )


def _ended(built: Machine, before: str) -> dict[str, str]:
    """Return the state of the unit, if it has ended since; else nothing."""
    state = _state(built, f"{UNIT}.service")
    ended = state["ExecMainExitTimestampMonotonic"] not in ("0", "", before) and state["ActiveState"] != "activating"
    return state if ended else {}


def _state(built: Machine, unit: str) -> dict[str, str]:
    names = "ActiveState,Result,ExecMainStatus,ExecMainExitTimestampMonotonic,InvocationID"
    lines = built.sh(f"systemctl show {unit} -p {names}").splitlines()
    return dict(line.split("=", 1) for line in lines)


def _night(built: Machine, number: int, code: int, log: str, said: str) -> Night:
    answer = json.loads([line for line in log.splitlines() if line.startswith('{"success"')][-1])
    built.say(f"night {number}: exit code {code}, {answer['saved']} saved, {answer['pending']} pending")
    return Night(code, answer["saved"], answer["pending"], said)


def _check_results(built: Machine, proof: Proof) -> None:
    """Claim the exit codes, and that every prompt has its result, generated once."""
    proof.claim(
        "nights 1 and 2 end with exit code 75, night 3 with 0", [one.code for one in proof.nights] == [75, 75, 0]
    )
    results = built.path("/srv/runner/results")
    lines = [json.loads(line) for line in (results / ".runner/ledger.jsonl").read_text().splitlines()]
    saved = {one["file"]: one for one in lines if one["outcome"] == "saved"}
    keys = {image.stem for image in built.path("/srv/runner/images").iterdir()}
    visible = {file.name for file in results.iterdir() if not file.name.startswith(".")}
    whole = all(
        hashlib.sha256((results / name).read_bytes()).hexdigest() == one["sha256"] for name, one in saved.items()
    )
    proof.claim(f"every one of {len(keys)} prompts has its result", {one["key"] for one in saved.values()} == keys)
    proof.claim(
        "every result is whole: its SHA-256 is the ledger's, and nothing else lies there",
        whole and visible == {*saved},
    )
    generated = Counter(one["key"] for one in lines for _ in one["attempts"])
    proof.claim("every prompt was generated once", set(generated.values()) == {1} and generated.keys() == keys)
    status = built.sh("runuser -u runner -- /opt/runner/.venv/bin/runner status /srv/runner/results >&2 && echo all")
    proof.claim("runner status finds nothing missing", status == "all\n")


def shown(name: str, proof: Proof) -> str:
    """Return what was seen on a machine, as a table and its claims."""
    lines = [f"== {name}", "night  exit code  saved  pending  said"]
    for number, one in enumerate(proof.nights, 1):
        said = one.said.strip().replace("\n", " / ") or "nothing"
        lines.append(f"{number:5}  {one.code:9}  {one.saved:5}  {one.pending:7}  {said}")
    lines += [f"{'ok    ' if holds else 'FAILED'} {what}" for what, holds in proof.claims]
    return "\n".join(lines)


def lacking(ways: list[str]) -> list[str]:
    """Say what this machine has not that the proof needs."""
    needed = [
        *NEEDED,
        *(["cron", "crontab"] if "cron" in ways else []),
        *(["systemctl"] if "systemd" in ways else []),
    ]
    found = [name for name in needed if not shutil.which(name, path=SYSTEM_PATH)]
    if "systemd" in ways and not Path(SYSTEMD).exists():
        found.append(SYSTEMD)
    if "overlay" not in Path("/proc/filesystems").read_text():
        found.append("overlayfs (modprobe overlay)")
    return ["to be root", *found] if os.geteuid() else found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["cron", "systemd"])
    parser.add_argument("--flags", default="", help="add these to the guide's command")
    options = parser.parse_args()
    ways = {"cron": by_cron, "systemd": by_systemd}
    if options.only:
        ways = {options.only: ways[options.only]}
    if missing := lacking(list(ways)):
        print(f"prove_nights: this can't be tried here; it needs {', '.join(missing)}", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: STOP.set())
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nights-") as where, ThreadPoolExecutor(len(ways)) as both:
        working = {name: both.submit(prove, Path(where), options.flags) for name, prove in ways.items()}
        holds = True
        for name, one in working.items():
            try:
                proof = one.result()
            except Failed as error:
                print(f"== {name}\nFAILED {error}")
                holds = False
            else:
                print(shown(name, proof))
                holds = holds and all(claim for _, claim in proof.claims)
    print(f"{'proved' if holds else 'NOT proved'} in {time.monotonic() - begun:.0f} s")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
