"""The HTTP side: ``POST /generate``, ``GET /health``, ``GET /version``; one generation at a time, others wait."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import uvicorn
from fastapi import FastAPI, Form, HTTPException, UploadFile
from fastapi.responses import StreamingResponse

from runner.server.image import BadImage, read_subject
from runner.server.splat import generate

VERSION = "reference-1"
_CHUNK = 64 * 1024
_KEEP_ALIVE_S = 300


def build_app(*, seconds: float = 0.0) -> FastAPI:
    """Return the application; each generation lasts at least ``seconds``, to rehearse a GPU.

    A broken image is answered 422 with a JSON ``detail`` that says why.
    """
    app = FastAPI(title="runner reference server", version=VERSION)
    gpu = ThreadPoolExecutor(max_workers=1, thread_name_prefix="generation")
    asked: set[object] = set()

    @app.get("/health")
    async def health() -> dict[str, object]:
        return {"status": "healthy", "busy": bool(asked), "queue": max(0, len(asked) - 1)}

    @app.get("/version")
    async def version() -> dict[str, str]:
        return {"version": VERSION}

    @app.post("/generate")
    async def generation(prompt_image_file: UploadFile, seed: int = Form(42)) -> StreamingResponse:
        content = await prompt_image_file.read()
        one = object()
        asked.add(one)
        try:
            ply = await asyncio.get_running_loop().run_in_executor(gpu, _generate, content, seed, seconds)
        except BadImage as error:
            raise HTTPException(422, detail=str(error)) from error
        finally:
            asked.discard(one)
        return StreamingResponse(_chunks(ply), media_type="application/octet-stream")

    return app


def serve(*, host: str, port: int, seconds: float) -> int:
    """Serve until SIGINT or SIGTERM; return the exit code, 1 if the port is taken."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except (OSError, OverflowError) as error:
            said = getattr(error, "strerror", None) or error
            print(f"runner serve: can't listen on {host}:{port}: {said}", file=sys.stderr)
            return 1
        port = listener.getsockname()[1]
        print(f"Serving on http://{host}:{port} (one generation at a time, at least {seconds:g} s)", file=sys.stderr)
        settings = uvicorn.Config(
            build_app(seconds=seconds),
            log_level="warning",
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=5,
        )
        uvicorn.Server(settings).run(sockets=[listener])
    return 0


def _generate(content: bytes, seed: int, seconds: float) -> bytes:
    begun = time.monotonic()
    ply = generate(read_subject(content), seed)
    time.sleep(max(0.0, seconds - (time.monotonic() - begun)))
    return ply


def _chunks(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), _CHUNK):
        yield content[start : start + _CHUNK]
