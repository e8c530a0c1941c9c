"""Chronicles and galleries of runs that never were, for the tests of the page and for trying it out."""

from __future__ import annotations

import base64
import hashlib
import io
import random
from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy
from PIL import Image

from runner.chronicle import (
    CHANGES,
    ENDS,
    NONE,
    STATES,
    Attempts,
    Changes,
    Chronicle,
    Idle,
    Outage,
    Rows,
    Run,
    Server,
    Turn,
)
from runner.pictures.records import BLANK, EXPLODED, Gallery, Picture
from runner.report import Cause, causes_of
from runner.report.causes import cause_of

ERRORS = (
    "",
    "http://127.0.0.1:10006/generate answers 500: CUDA out of memory. Tried to allocate 2.31 GiB (GPU 0; 23.69 GiB "
    "total capacity; 21.02 GiB already allocated)",
    "http://127.0.0.1:10007/generate: no answer in 300 s",
    "the image can't be read: 404 Not Found for https://images.example/chairs/broken.png",
    "the result is no whole PLY: it ends after 81920 of 1310720 bytes\nits header says 20480 vertices",
)
WORDS = "chair table lamp teapot bicycle dragon violin rocket castle turtle robot piano".split()


def chronicle(
    prompts: int = 12,
    endpoints: int = 4,
    *,
    runs: int = 1,
    failing: float = 0.0,
    slots: int = 1,
    pending: int = 0,
    seconds: float = 12.0,
    seed: int = 7,
    folder: str = "/data/results/four-gpus",
) -> Chronicle:
    """Return what ``runs`` runs did with a list of prompts; the same for the same arguments.

    A share ``failing`` of them fails for good, ``pending`` are left. The third endpoint is slow, the second goes out.
    """
    dice = random.Random(seed)
    servers = tuple(Server(f"gpu-{place}", f"http://127.0.0.1:{10006 + place}", slots) for place in range(endpoints))
    speeds = [seconds * dice.uniform(0.85, 1.2) for _ in servers]
    if endpoints > 2:
        speeds[2] *= 2.3
    rows = _rows(prompts, pending, failing, dice)
    attempts = Attempts()
    outages: list[Outage] = []
    idle: list[Idle] = []
    told_runs: list[Run] = []
    before: dict[int, float] = {}
    for run in range(runs):
        drive = _Drive(run, f"2026-11-{29 - runs + run:02d}T22:14:03.120000Z", rows, servers, dice)
        told_runs.append(drive.work(_work_of(rows, run, runs, dice), speeds, before))
        before = {turn.endpoint: turn.median_s for turn in told_runs[-1].turns if turn.median_s}
        for column, one in zip(fields(Attempts), zip(*drive.columns, strict=True), strict=False):
            getattr(attempts, column.name).extend(one)
        outages += drive.outages
        idle += drive.idle
    saved, failed = (sum(1 for state in rows.state if state == STATES.index(name)) for name in ("saved", "failed"))
    return Chronicle(
        folder=folder,
        made_at="2026-11-29T06:30:00.000000Z",
        total=prompts,
        saved=saved,
        failed=failed,
        pending=prompts - saved - failed,
        endpoints=servers,
        runs=tuple(told_runs),
        shown=runs - 1 if runs else None,
        before=runs - 2 if runs > 1 else None,
        attempts=attempts,
        rows=rows,
        errors=list(ERRORS),
        outages=tuple(outages),
        idle=tuple(idle),
        causes=tuple(_causes(rows, servers)),
        changes=_changes(rows),
    )


def _rows(prompts: int, pending: int, failing: float, dice: random.Random) -> Rows:
    rows = Rows()
    failed = round(prompts * failing)
    for place in range(prompts):
        state = "failed" if place < failed else "pending" if place < failed + pending else "saved"
        key = f"{WORDS[place % len(WORDS)]}-{place:06d}" if prompts > 100 else f"{WORDS[place % len(WORDS)]}-{place}"
        saved = state == "saved"
        rows.keys.append(key)
        rows.prompts.append(f"https://images.example/{WORDS[place % len(WORDS)]}/{place}.png")
        rows.images.append("")
        rows.state.append(STATES.index(state))
        rows.run.append(NONE)
        rows.endpoint.append(NONE)
        rows.attempts.append(0)
        rows.generate_s.append(0)
        rows.image_s.append(dice.lognormvariate(-1.6, 0.6))
        rows.save_s.append(dice.lognormvariate(-3.5, 0.5) if saved else 0)
        rows.seconds.append(0)
        rows.size_bytes.append(int(dice.lognormvariate(14.1, 0.35)) if saved else 0)
        rows.files.append(f"{key}.ply" if saved else "")
        rows.formats.append("ply" if saved else "")
        rows.sha256.append(hashlib.sha256(key.encode()).hexdigest() if saved else "")
        rows.missing.append(1 if saved and dice.random() < 0.001 else 0)
        rows.more.append(0)
        rows.error.append(1 + place % (len(ERRORS) - 1) if state == "failed" else 0)
        rows.change.append(CHANGES.index({"failed": "newly failed", "saved": "newly saved", "pending": ""}[state]))
    return rows


def _work_of(rows: Rows, run: int, runs: int, dice: random.Random) -> list[int]:
    """Return the rows that a run takes up: each run a share of them, the last also what failed."""
    places = [place for place in range(len(rows)) if rows.state[place] != STATES.index("pending")]
    if runs == 1:
        return dice.sample(places, len(places))
    share = len(places) * run // runs, len(places) * (run + 1) // runs
    failed = [place for place in places if rows.state[place] == STATES.index("failed")]
    chosen = list(dict.fromkeys([*failed, *places[slice(*share)]]))
    return dice.sample(chosen, len(chosen))


class _Drive:
    """Lets the endpoints of one run work off rows, slot by slot, and writes down every attempt and gap."""

    def __init__(self, run: int, began_at: str, rows: Rows, servers: Sequence[Server], dice: random.Random) -> None:
        self.run, self.began_at, self.rows, self.servers, self.dice = run, began_at, rows, servers, dice
        self.columns: list[tuple[float, ...]] = []
        self.outages: list[Outage] = []
        self.idle: list[Idle] = []

    def work(self, work: Sequence[int], speeds: Sequence[float], before: Mapping[int, float]) -> Run:
        lanes = [work[place :: len(self.servers)] for place in range(len(self.servers))]
        clocks = [self._lane(place, lane, speeds[place]) for place, lane in enumerate(lanes)]
        seconds = 1.0 + max((at for clock in clocks for at in clock), default=0.0)
        for place, clock in enumerate(clocks):
            self.idle += [Idle(self.run, place, slot, at, seconds, "over") for slot, at in enumerate(clock)]
        self.columns.sort(key=lambda one: (one[1], one[5]))
        turns = [self._turn(place, lane, seconds, before.get(place)) for place, lane in enumerate(lanes)]
        failed = sum(turn.failed for turn in turns)
        return Run(
            name=f"{self.began_at}-7f3a",
            began_at=self.began_at,
            seconds=seconds,
            ended="done",
            total=len(self.rows),
            saved=len(work) - failed,
            skipped=len(self.rows) - len(work),
            failed=failed,
            pending=0,
            attempts=len(self.columns),
            bytes=sum(turn.bytes for turn in turns),
            share=sum(turn.share for turn in turns) / max(len(turns), 1),
            command="cd ~/nightly && runner run configs/four-gpus.yaml --report",
            turns=tuple(turns),
        )

    def _lane(self, place: int, lane: Sequence[int], speed_s: float) -> list[float]:
        """Work off one endpoint's rows; return when each of its slots was done."""
        slots = range(self.servers[place].slots)
        clock = [self.dice.uniform(0.2, 1.0) for _ in slots]
        self.idle += [Idle(self.run, place, slot, 0.0, clock[slot], "start") for slot in slots]
        breaks = len(lane) // 2 if len(self.servers) > 1 and place == 1 and len(lane) > 2 else -1
        for number, row in enumerate(lane):
            if number == breaks:
                clock = self._outage(place, clock, max(clock) + 4 * speed_s)
            slot = min(slots, key=clock.__getitem__)
            clock[slot] = self._attempts(place, slot, row, clock[slot], speed_s)
            if self.dice.random() < 0.02:
                until_s = clock[slot] + 0.4 * speed_s
                self.idle.append(Idle(self.run, place, slot, clock[slot], until_s, "image"))
                clock[slot] = until_s
        return clock

    def _outage(self, place: int, clock: Sequence[float], until_s: float) -> list[float]:
        why = "3 failures in a row: connection refused"
        self.outages.append(Outage(self.run, place, max(clock), until_s, why))
        self.idle += [Idle(self.run, place, slot, at, until_s, "out") for slot, at in enumerate(clock)]
        return [until_s] * len(clock)

    def _attempts(self, place: int, slot: int, row: int, at_s: float, speed_s: float) -> float:
        """Ask for one row until it is done with; return when."""
        rows, dice = self.rows, self.dice
        failed = rows.state[row] == STATES.index("failed")
        tries = 3 if failed else 2 if dice.random() < 0.04 else 1
        generate_s = 0.0
        for number in range(1, tries + 1):
            generate_s = speed_s * dice.lognormvariate(0, 0.18)
            end = "retried" if number < tries else "failed" if failed else "saved"
            receive_s = generate_s * 0.08 if end == "saved" else 0.0
            error = 0 if end == "saved" else rows.error[row] or 2
            end_status = ENDS.index(end), int(dice.random() < 0.02), (200, 500, 0, 0, 200)[error], error
            times = at_s, dice.uniform(0, 0.4), generate_s, receive_s
            self.columns.append((self.run, place, slot, row, number, *times, *end_status))
            at_s += generate_s + receive_s + 0.02
            if number < tries:
                self.idle.append(Idle(self.run, place, slot, at_s, at_s + 0.1 * generate_s, "wait"))
                at_s += 0.1 * generate_s
        rows.run[row], rows.endpoint[row], rows.attempts[row] = self.run, place, tries
        rows.generate_s[row], rows.seconds[row] = generate_s, generate_s * 1.1 + rows.image_s[row]
        return at_s

    def _turn(self, place: int, lane: Sequence[int], seconds: float, before_s: float | None) -> Turn:
        first, last = (bisect(self.columns, one, key=lambda column: column[1]) for one in (place - 1, place))
        mine = self.columns[first:last]
        taken = sorted(one[7] for one in mine if one[9] == ENDS.index("saved"))
        busy_s = sum(one[7] for one in mine) / self.servers[place].slots
        failed = sum(1 for row in lane if self.rows.state[row] == STATES.index("failed"))
        reasons: dict[str, float] = {}
        for gap in self.idle:
            if gap.endpoint == place:
                reasons[gap.why] = reasons.get(gap.why, 0.0) + gap.until_s - gap.from_s
        return Turn(
            endpoint=place,
            saved=len(lane) - failed,
            failed=failed,
            attempts=len(mine),
            outages=sum(1 for one in self.outages if one.endpoint == place),
            bytes=sum(int(self.rows.size_bytes[row]) for row in lane),
            busy_s=busy_s,
            share=min(1.0, busy_s / seconds),
            median_s=taken[len(taken) // 2] if taken else None,
            slow=place == 2 and len(self.servers) > 2,
            before_s=before_s,
            idle=reasons,
        )


def _causes(rows: Rows, servers: Sequence[Server]) -> list[Cause]:
    failed = [place for place in range(len(rows)) if rows.state[place] == STATES.index("failed")]
    names = ["" if rows.endpoint[place] == NONE else servers[rows.endpoint[place]].name for place in failed]
    return causes_of(
        (rows.keys[place], name, ERRORS[rows.error[place]]) for place, name in zip(failed, names, strict=True)
    )


def _changes(rows: Rows) -> Changes:
    saved = [key for key, change in zip(rows.keys, rows.change, strict=True) if CHANGES[change] == "newly saved"]
    failed = [key for key, change in zip(rows.keys, rows.change, strict=True) if CHANGES[change] == "newly failed"]
    return Changes(len(saved), len(failed), 0, tuple(saved[:50]), tuple(failed[:50]))


def renamed(told: Chronicle, name: str) -> Chronicle:
    """Return a chronicle in which every text from outside contains ``name``."""
    rows = told.rows
    rows.keys[:] = [f"{name}{place}" for place in range(len(rows))]
    rows.prompts[:] = [name] * len(rows)
    rows.files[:] = [file and f"{name}.ply" for file in rows.files]
    rows.formats[:] = [form and name[:20] for form in rows.formats]
    runs = [replace(run, command=name, why=name, ended="stopped", name=name) for run in told.runs]
    return replace(
        told,
        folder=f"/data/{name}",
        endpoints=tuple(Server(name, name, one.slots) for one in told.endpoints),
        runs=tuple(runs),
        errors=["", *[name] * (len(told.errors) - 1)],
        outages=tuple(replace(one, why=name) for one in told.outages),
        causes=tuple(Cause(cause_of(name), one.count, f"{name}0", name, (name,)) for one in told.causes),
        changes=Changes(1, 1, 1, (name,), (name,), (name,)),
        notes=(name,),
    )


def gallery(told: Chronicle, folder: Path, *, drawn: int, model: bytes = b"") -> Gallery:
    """Return pictures of the first ``drawn`` rows; files are made for a few thousand of them at the most."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {}
    shapes = [_drawing(place) for place in range(48)]
    for row in range(min(drawn, len(told.rows))):
        saved = told.rows.state[row] == STATES.index("saved")
        result, prompt = folder / f"{row:06d}-result.webp", folder / f"{row:06d}-prompt.webp"
        if row < 3000:
            result.write_bytes(shapes[row % 48])
            prompt.write_bytes(shapes[(row + 24) % 48])
        flags: tuple[tuple[str, str], ...] = ()
        if saved and row % 31 == 4:
            flags = ((BLANK, "no splat is opaque: the largest opacity is 0.004"),)
        if saved and row % 53 == 8:
            flags = ((EXPLODED, "it is 340 × as wide as the median of the others"),)
        script = folder / f"{told.rows.sha256[row]}.js"
        if saved and model and row < 300:
            name = told.rows.sha256[row]
            script.write_bytes(b'runnerModel("%s","ply","%s");\n' % (name.encode(), base64.b64encode(model)))
        pictures[row] = Picture(
            kind="splats" if saved else "other",
            thumbnail=result if saved else None,
            prompt=prompt,
            model=script if saved and model else None,
            count=40_000 + row,
            box=(1.0, 1.2, 0.8) if saved else None,
            flags=flags,
        )
    return Gallery(
        pictures, () if drawn >= len(told.rows) else (f"{len(told.rows) - drawn} results are not drawn yet.",)
    )


def _drawing(place: int) -> bytes:
    """Return a picture of 192 × 192 pixels as WebP: a shaded ball on a plain ground."""
    y, x = numpy.mgrid[-1:1:192j, -1:1:192j]
    radius = 0.55 + 0.2 * ((place * 7) % 11) / 11
    inside = (x**2 + y**2) < radius**2
    z = numpy.sqrt(numpy.clip(radius**2 - x**2 - y**2, 0, None))
    light = numpy.clip((-0.5 * x - 0.7 * y + z) / radius / 1.3, 0.08, 1)
    hue = numpy.array([0.5 + 0.5 * numpy.cos(place * 0.7 + shift) for shift in (0, 2.1, 4.2)]) * 0.7 + 0.25
    noise = 0.9 + 0.1 * numpy.sin(14 * x + place) * numpy.cos(11 * y + 2 * place)
    ground = numpy.full((192, 192, 3), 0.93 - 0.06 * y[..., None])
    ball = light[..., None] * noise[..., None] * hue
    pixels = numpy.where(inside[..., None], ball, ground)
    file = io.BytesIO()
    Image.fromarray((255 * numpy.clip(pixels, 0, 1)).astype("uint8")).save(file, "WEBP", quality=80)
    return file.getvalue()


def empty(**others: object) -> Chronicle:
    """Return a chronicle of a folder in which nothing has run."""
    nothing = Chronicle(
        folder="/data/results/new",
        made_at="2026-11-29T06:30:00.000000Z",
        total=0,
        saved=0,
        failed=0,
        pending=0,
        endpoints=(),
        runs=(),
        shown=None,
        before=None,
        attempts=Attempts(),
        rows=Rows(),
        errors=[""],
    )
    return replace(nothing, **others)  # type: ignore[arg-type]
