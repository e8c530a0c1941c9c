"""The records of how tasks end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from runner.clock import since, utc_now
from runner.lanes import lane_of
from runner.prompts import Fingerprints, encode, shown
from runner.records import Image, Kind, Outcome, Prompt, Saving, Task
from runner.remote import Held
from runner.schedule import Lane

STOPPED = "stopped before it was generated"


class Outcomes:
    """Makes the records of how tasks end."""

    def __init__(self, *, lane_names: Sequence[str], seed: int, protocol: str) -> None:
        self._lane_names = lane_names
        self._seed = seed
        self._protocol = protocol
        self._fingerprints = Fingerprints(seed=seed, protocol=protocol)

    def fingerprint(self, prompt: Prompt) -> str:
        """Return what a result is known by, beside its key."""
        return self._fingerprints.of(encode(prompt)).hex()

    def held(self, task: Task, lane: Lane, held: Held) -> Saving:
        """Return what an earlier run made of a task: nothing was asked for now."""
        first, *more = held.files
        endpoint = held.endpoint if held.endpoint in self._lane_names else lane.endpoint.name
        home = self._home(task.prompt)
        outcome = replace(
            self.of(task, lane, "saved", **asdict(first), more=tuple(more)),
            attempts=(),
            image=held.image,
            endpoint=endpoint,
            moved_from=home if home != endpoint else None,
        )
        return Saving(outcome, held)

    def of(self, task: Task, lane: Lane, kind: Kind, image: Image | None = None, **results: Any) -> Outcome:
        """Return the outcome of a task as it stands."""
        prompt = task.prompt
        home = self._home(prompt)
        return Outcome(
            key=prompt.key,
            index=prompt.index,
            prompt=shown(prompt),
            outcome=kind,
            endpoint=lane.endpoint.name,
            fingerprint=self.fingerprint(prompt),
            seed=self._seed if prompt.seed is None else prompt.seed,
            protocol=self._protocol,
            attempts=tuple(task.attempts),
            image=_local_image(prompt, image),
            image_s=round(task.image_s, 6),
            save_s=task.save_s,
            seconds=since(task.begun),
            finished_at=utc_now(),
            moved_from=home if home != lane.endpoint.name else None,
            **results,
        )

    def _home(self, prompt: Prompt) -> str:
        return self._lane_names[lane_of(prompt.index, len(self._lane_names))]


def _local_image(prompt: Prompt, image: Image | None) -> dict[str, object] | None:
    if image is None or prompt.is_url:
        return None
    return {"size_bytes": image.size_bytes, "mtime_ns": image.mtime_ns, "sha256": image.sha256}
