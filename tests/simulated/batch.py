"""The 404 batch API: a pod that takes many prompts at once and gives one ZIP."""

from __future__ import annotations

import io
import json
import re
import threading
import urllib.request
import zipfile
from typing import Any

from simulated.artefacts import js, name_in
from simulated.base import Answer, Call, Simulated, said


class Batch(Simulated):
    """404's miner reference. ``failure``: the next prompt ends in ``_failed.json``.

    It also knows ``warming`` (the next statuses say so), ``lost`` (the next prompt is in neither place), ``replace``
    (the next batch ends so) and ``slip`` (the next ZIP names its members ``../STEM.js``). ``repeated`` counts
    submissions of the same stems, which generate nothing.
    """

    preset = "404-batch"
    prompts = "url"
    extension = "js"
    make = staticmethod(js)

    def __init__(self, generation_s: float = 0.02) -> None:
        self.state = "ready"
        self.batches: list[list[str]] = []
        self.repeated = 0
        self._stems: frozenset[str] = frozenset()
        self._archive = b""
        self._threads: list[threading.Thread] = []
        super().__init__(generation_s)

    def __exit__(self, *arguments: object) -> None:
        super().__exit__(*arguments)
        for thread in self._threads:
            thread.join()

    def serve(self, call: Call) -> Answer:
        match call.method, call.path:
            case "GET", "/health":
                self._count("probes")
                return said({"status": "ok"})
            case "GET", "/status":
                return self._status()
            case "POST", "/generate":
                return self._accept(call.document)
            case "GET", "/results":
                self._count("fetches")
                if self.state != "complete":
                    words = f"Results not available in state '{self.state}'. Must be 'complete'."
                    return said({"detail": words}, 409)
                return Answer(200, self._whole_or_torn(self._archive), "application/zip", chunked=True)
        return self.not_found()

    def _status(self) -> Answer:
        self._count("polls")
        if self._granted("poll 500"):
            return Answer(500, b"Internal Server Error", "text/plain")
        if self._granted("poll 429"):
            return said({"detail": "Too Many Requests"}, 429)
        return said({"status": "warming_up" if self._granted("warming") else self.state})

    def _accept(self, document: Any) -> Answer:
        self._count("submissions")
        if problem := _problem(document):
            return said({"detail": [{"type": "missing", "loc": ["body", problem], "msg": "Field required"}]}, 422)
        if self._granted("busy"):
            return self._refused("generating")
        prompts = document["prompts"]
        stems = frozenset(prompt["stem"] for prompt in prompts)
        with self._guard:
            if self.state in ("generating", "complete") and stems == self._stems:
                self.repeated += 1
                return said({"accepted": len(prompts)})
            if self.state not in ("ready", "complete"):
                return self._refused(self.state)
            self.state, self._stems, self._archive = "generating", stems, b""
            self.batches.append([prompt["stem"] for prompt in prompts])
        thread = threading.Thread(target=self._work, args=(prompts, document["seed"]), daemon=True)
        self._threads.append(thread)
        thread.start()
        return said({"accepted": len(prompts)})

    @staticmethod
    def _refused(state: str) -> Answer:
        return said({"detail": "Cannot accept batch", "current_status": state}, 409)

    def _work(self, prompts: list[dict[str, str]], seed: int) -> None:
        results: dict[str, bytes] = {}
        failed: dict[str, str] = {}
        for prompt in prompts:
            try:
                result = self._generate(name_in(_download(prompt["image_url"])), seed)
            except (OSError, ValueError):
                failed[prompt["stem"]] = "image download failed"
                continue
            if self._granted("failure"):
                failed[prompt["stem"]] = "inference timeout"
            elif not self._granted("lost"):
                results[prompt["stem"]] = result
        self._archive = _zip(results, failed, "../" if self._granted("slip") else "")
        self.state = "replace" if self._granted("replace") else "complete"


def _problem(document: Any) -> str | None:
    if not isinstance(document, dict) or not isinstance(document.get("prompts"), list):
        return "prompts"
    if not isinstance(document.get("seed"), int):
        return "seed"
    for prompt in document["prompts"]:
        if not re.fullmatch("[a-z0-9]+", prompt.get("stem", "")):
            return "stem"
        if not isinstance(prompt.get("image_url"), str):
            return "image_url"
    return None


def _download(url: str) -> bytes:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as answer:
        content: bytes = answer.read()
        return content


def _zip(results: dict[str, bytes], failed: dict[str, str], prefix: str) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for stem, content in results.items():
            archive.writestr(f"{prefix}{stem}.js", content)
        if failed:
            archive.writestr("_failed.json", json.dumps(failed, indent=2))
    return written.getvalue()
