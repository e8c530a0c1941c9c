"""What a drawing process does: read jobs from stdin, draw, write the pictures, answer on stdout.

Nothing else imports numpy, Pillow and what draws with them: a damaged file may take a process with it, but not a run.
"""

from __future__ import annotations

import base64
import io
import signal
import sys
from pathlib import Path
from typing import BinaryIO

from runner.pictures.entries import Entry, thumbnail_name
from runner.pictures.jobs import READY, Job, Refused, answer_line
from runner.pictures.look import look, prompt_thumbnail
from runner.storage import write_whole


def main(folder: str) -> None:
    """Serve until stdin ends. Ctrl-C is for who started this."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(Path(folder), sys.stdin.buffer, sys.stdout.buffer)


def serve(folder: Path, jobs: BinaryIO, answers: BinaryIO) -> None:
    answers.write(READY)
    answers.flush()
    for line in jobs:
        job = Job.read(line)
        try:
            answer: Entry | Refused = done(job, folder)
        except OSError as error:
            answer = Refused(error.strerror or str(error))
        answers.write(answer_line(answer))
        answers.flush()


def done(job: Job, folder: Path) -> Entry:
    """Draw, write the files, and return what is to be noted. Raises OSError if they can't be written."""
    thumbnail = folder / thumbnail_name(job.of, job.key)
    if job.of == "prompt":
        content = prompt_thumbnail(io.BytesIO(base64.b64decode(job.content)) if job.content else Path(job.path))
        if content:
            write_whole(thumbnail, [content])
        return Entry("prompt", job.key, job.size_bytes, "image", thumbnail_bytes=len(content))
    seen = look(Path(job.path), job.format)
    script = b""
    if seen.model:
        name, model = seen.model
        script = b'runnerModel("%b","%b","%b");\n' % (job.key.encode(), name.encode(), base64.b64encode(model))
        write_whole(folder / f"{job.key}.js", [script])
    if seen.thumbnail:
        write_whole(thumbnail, [seen.thumbnail])
    return Entry(
        "result",
        job.key,
        job.size_bytes,
        seen.kind,
        thumbnail_bytes=len(seen.thumbnail),
        model_bytes=len(script),
        count=seen.count,
        box=seen.box,
        words=seen.words,
        flags=seen.flags,
        why=seen.why,
    )
