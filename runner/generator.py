"""The ancestor's class: the same arguments, over ``run``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from runner.config import config_from
from runner.errors import UsageError
from runner.journal import heard_by
from runner.prompts import prompts_from
from runner.records import Summary
from runner.runs import run
from runner.stop import Stop


class PromptItem(Protocol):
    """What the ancestor calls a prompt item: an image, and the name of its result or None."""

    @property
    def image_url(self) -> str: ...
    @property
    def stem(self) -> str | None: ...


Given = str | Mapping[str, Any] | PromptItem
"""A prompt from Python: an image (a text, if the protocol takes these), the fields of a list's entry, or an item."""


class Generator:
    """Send image URLs (or paths) to one or many endpoints, and save what they generate.

    ``endpoint`` is a URL or a list of URLs; ``output_folder`` is relative to the current folder; ``echo`` gets
    every line of the log. Further options are those of the YAML, for example ``retry={"attempts": 5}``. Raises
    UsageError if an option is wrong.
    """

    def __init__(
        self,
        endpoint: str | Sequence[str],
        seed: int = 42,
        output_folder: str | Path = "results",
        echo: Callable[[str], object] | None = None,
        **options: object,
    ) -> None:
        endpoints = [endpoint] if isinstance(endpoint, str) else list(endpoint)
        self._echo = echo
        self._config = config_from(
            {
                "endpoints": endpoints,
                "prompts": ["-"],
                "seed": seed,
                "output_folder": str(output_folder),
                **options,
            },
            name="Generator",
        )

    def run(self, image_urls: Iterable[Given], *, stop: Stop | None = None) -> Summary:
        """Generate for every URL, block until all are done, and return the summary; what is saved is skipped.

        In the place of URLs there may be mappings with the fields of a prompts file, or objects with ``image_url``
        and ``stem``, which names the result.
        """
        handler = _Echo(self._echo) if self._echo else logging.NullHandler()
        with heard_by(handler):
            protocol = self._config.protocol
            prompts = prompts_from(
                map(_entry, image_urls),
                base=Path.cwd(),
                keys=self._config.settings.output.keys,
                where="image_urls",
                what=protocol.what,
                several=protocol.several,
            )
            return run(self._config, prompts=prompts, stop=stop)

    async def generate_all(self, image_urls: Iterable[Given]) -> Summary:
        """Do as ``run`` does, without blocking the event loop.

        When the task is cancelled, nothing new is started; what is in flight is finished and saved first.
        """
        stop = Stop()
        working = asyncio.get_running_loop().run_in_executor(None, lambda: self.run(image_urls, stop=stop))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            stop.ask("cancelled")
            await working
            raise


def _entry(given: Given) -> str | Mapping[str, Any]:
    if isinstance(given, str | Mapping):
        return given
    try:
        return {"image_url": given.image_url, "stem": given.stem}
    except AttributeError as error:
        raise UsageError(
            f"image_urls: expected URLs, or objects with image_url and stem, got {type(given).__name__}"
        ) from error


class _Echo(logging.Handler):
    """Hands every log line to a function."""

    def __init__(self, echo: Callable[[str], object]) -> None:
        super().__init__()
        self._say = echo

    def emit(self, record: logging.LogRecord) -> None:
        self._say(record.getMessage())
