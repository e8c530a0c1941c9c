"""The ancestor's module: ``from generator import Generator`` goes on working, by the runner.

    generator = Generator(endpoint=["http://127.0.0.1:10006", …], seed=42, output_folder=Path("results"), echo=print)
    await generator.generate_all(["https://example.com/chair.png", …])
    await generator.generate_all([PromptItem(image_url="https://example.com/chair.png", stem="chair1"), …])

For pods that take batches add ``protocol="404-batch"``; every option of the YAML may be given so. ``generate_all``
returns the summary: ``saved``, ``failed``, ``success`` and the rest. It works in this repository, and copied to
anywhere for a Python that the runner is installed in.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

if importlib.util.find_spec("runner") is None:
    sys.path.append(str(Path(__file__).resolve().parents[1]))  # this repository, if it was not copied

from runner import Generator

__all__ = ["Generator", "PromptItem"]


@dataclass(frozen=True)
class PromptItem:
    """An image and, if it is to be another than the image's, the name of its result."""

    image_url: str
    stem: str | None = None
