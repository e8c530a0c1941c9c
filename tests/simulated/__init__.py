"""Real local servers that behave as the presets' servers do, one class a preset, and misbehave when told to.

    with SERVERS["cog"]() as server:
        server.misbehave("busy", 2)       # the next two submissions are answered as Cog answers when it is full
        ...
        assert server.generations["chair"] == 1
        assert saved == server.artefact("chair", 42)

A prompt's name is its text, or what ``artefacts.prompt_image`` wrote into its image: results tell whose they are.
"""

from __future__ import annotations

from simulated import batch, jobs, sync
from simulated.artefacts import named_png, prompt_image
from simulated.base import ImageHost, Simulated

SERVERS: dict[str, type[Simulated]] = {
    server.preset: server
    for server in (
        sync.Splat,
        sync.Mesh,
        batch.Batch,
        sync.Hunyuan,
        jobs.HunyuanJob,
        sync.Trellis,
        sync.StableFast,
        jobs.Comfy,
        sync.WebUi,
        sync.Images,
        sync.Chat,
        jobs.RunPod,
        jobs.Replicate,
        jobs.Tripo,
        jobs.Meshy,
        sync.Stability,
        sync.KServe,
        sync.Cog,
        jobs.Gradio,
    )
}

__all__ = ["SERVERS", "ImageHost", "Simulated", "named_png", "prompt_image"]
