"""Servers whose answer to the request is the result."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any, ClassVar

from simulated.artefacts import half, name_in, name_in_data_url, named_png, ply
from simulated.base import Answer, Call, Refused, Simulated, missing, moment, said

FULL = Answer(429, b"<html><h1>429 Too Many Requests</h1></html>", "text/html")
"""What a proxy says before a server that never says busy itself."""


def _image_named(image: bytes, otherwise: Answer) -> str:
    try:
        return name_in(image)
    except ValueError:
        raise Refused(otherwise) from None


def _base64_image(content: object, refuse: Callable[[str], Answer]) -> str:
    try:
        return name_in(base64.b64decode(str(content), validate=True))
    except ValueError as error:
        raise Refused(refuse(str(error))) from None


class Splat(Simulated):
    """404's splat server: FastAPI, one generation after the other, a bare 500 for any failure."""

    preset = "404-splat"
    extension = "ply"
    announces_length: ClassVar[bool] = False
    CRASHED: ClassVar[Answer] = Answer(500, b"Internal Server Error", "text/plain")

    @staticmethod
    def make(label: str) -> bytes:
        return ply(label)

    def serve(self, call: Call) -> Answer:
        match call.method, call.path:
            case "POST", "/generate":
                return self._generation(call)
            case "GET", "/health":
                self._count("probes")
                return said({"status": "healthy"})
            case "GET", "/version":
                return said("0.0.0")
        return self.not_found()

    def _generation(self, call: Call) -> Answer:
        self._count("submissions")
        fields, files = call.form
        if "prompt_image_file" not in files:
            raise missing("prompt_image_file")
        if self._granted("busy"):
            return FULL
        prompt = _image_named(files["prompt_image_file"], self.CRASHED)
        result = self._generate(prompt, int(fields.get("seed", -1)))
        if self._granted("failure"):
            return self.CRASHED
        return Answer(200, self._whole_or_torn(result), chunked=not self.announces_length)


class Mesh(Splat):
    """404's mesh server: as the splat server, with GLB and Content-Length."""

    preset = "404-mesh"
    extension = "glb"
    announces_length = True
    make = staticmethod(Simulated.make)


class Hunyuan(Simulated):
    """Hunyuan3D-2: every failure is a 404."""

    preset = "hunyuan3d"
    FAILED: ClassVar[Answer] = said(
        {"text": "**NETWORK ERROR DUE TO HIGH TRAFFIC. PLEASE REGENERATE OR REFRESH THIS PAGE.**", "error_code": 1},
        404,
    )

    def serve(self, call: Call) -> Answer:
        if (call.method, call.path) != ("POST", "/generate"):
            return self.not_found()
        self._count("submissions")
        if self._granted("busy"):
            return FULL
        if not isinstance(call.document, dict):
            return Splat.CRASHED
        if "image" not in call.document:
            return self.FAILED
        prompt = _base64_image(call.document["image"], lambda _: self.FAILED)
        seed = call.document.get("seed", 1234)
        if not isinstance(seed, int):
            return self.FAILED  # torch.Generator wants an int
        result = self._generate(prompt, seed)
        return self.FAILED if self._granted("failure") else Answer(200, self._whole_or_torn(result))


class Trellis(Simulated):
    """A StableProjectorz fork: one generation, and one file that the next generation overwrites."""

    preset = "trellis"

    def __init__(self, generation_s: float = 0.02) -> None:
        self._model: bytes | None = None
        self.overwritten = 0
        """Generations that began before the last one's result was fetched."""
        self._waits_for_fetch = False
        super().__init__(generation_s)

    def serve(self, call: Call) -> Answer:
        match call.method, call.path:
            case "GET", "/ping":
                self._count("probes")
                return said(
                    {"status": "running", "message": "Trellis API is operational", "busy": self._gpu.locked()}
                )
            case "POST", "/generate_no_preview":
                return self._generation(call)
            case "GET", "/download/model":
                self._count("fetches")
                if self._model is None:
                    return said({"detail": "Mesh not found"}, 404)
                self._waits_for_fetch = False
                return Answer(200, self._whole_or_torn(self._model), "model/gltf-binary")
        return self.not_found()

    def _generation(self, call: Call) -> Answer:
        self._count("submissions")
        if self._granted("busy") or self._gpu.locked():
            return said({"detail": "Server is busy with another generation"}, 503)
        fields, files = call.form
        if "file" not in files and "image_base64" not in fields:
            return said({"detail": "400: No input images provided"}, 500)
        refused = said({"detail": "400: get_image - issue opening the image file: cannot identify image file"}, 500)
        prompt = _image_named(files.get("file", b""), refused)
        self.overwritten += self._waits_for_fetch
        self._model = None
        result = self._generate(prompt, int(fields.get("seed", 1)))
        if self._granted("failure"):
            return said({"detail": "CUDA out of memory. Tried to allocate 2.00 GiB"}, 500)
        self._model, self._waits_for_fetch = result, True
        done = {"status": "COMPLETE", "progress": 100, "message": "Generation complete", "preview_urls": None}
        return said({**done, "model_url": "/download/model"})


class StableFast(Simulated):
    """A FastAPI wrapper around Stable Fast 3D: no seed, no health page."""

    preset = "stable-fast-3d"
    seeded = False

    def serve(self, call: Call) -> Answer:
        if (call.method, call.path) != ("POST", "/generate"):
            return self.not_found()
        self._count("submissions")
        if "file" not in call.form[1]:
            raise missing("file")
        if self._granted("busy"):
            return FULL
        prompt = _image_named(call.form[1]["file"], said({"detail": "cannot identify image file"}, 500))
        result = self._generate(prompt, None)
        if self._granted("failure"):
            return said({"detail": "CUDA out of memory"}, 500)
        return Answer(200, self._whole_or_torn(result), "model/gltf-binary")


class WebUi(Simulated):
    """AUTOMATIC1111's web UI with --api."""

    preset = "a1111"
    prompts = "text"
    extension = "png"
    make = staticmethod(named_png)

    def serve(self, call: Call) -> Answer:
        match call.method, call.path:
            case "GET", "/sdapi/v1/progress":
                self._count("probes")
                return said(
                    {"progress": 0.0, "eta_relative": 0.0, "state": {}, "current_image": None, "textinfo": None}
                )
            case "POST", "/sdapi/v1/txt2img":
                return self._generation(call.document)
        return self.not_found()

    def _generation(self, document: Any) -> Answer:
        self._count("submissions")
        if not isinstance(document, dict) or not isinstance(document.get("seed", -1), int):
            raise missing("seed")
        if self._granted("busy"):
            return FULL
        result = self._generate(document.get("prompt", ""), document.get("seed", -1))
        if self._granted("failure"):
            error = {"error": "OutOfMemoryError", "detail": "", "body": "", "errors": "CUDA out of memory."}
            return said(error, 500)
        image = base64.b64encode(self._whole_or_torn(result)).decode()
        images = [image] * int(document.get("batch_size", 1))
        return said({"images": images, "parameters": document, "info": json.dumps({"seed": document.get("seed")})})


class Images(Simulated):
    """An OpenAI-style image server of one's own."""

    preset = "openai-images"
    prompts = "text"
    extension = "png"
    make = staticmethod(named_png)
    path: ClassVar[str] = "/v1/images/generations"
    required: ClassVar[str] = "prompt"

    def serve(self, call: Call) -> Answer:
        if (call.method, call.path) == ("GET", "/v1/models"):
            self._count("probes")
            return said({"object": "list", "data": [{"id": "default", "object": "model"}]})
        if (call.method, call.path) != ("POST", self.path):
            return self.not_found()
        self._count("submissions")
        document = call.document
        if not isinstance(document, dict) or self.required not in document:
            return self._error(400, "invalid_request_error", f"Missing required parameter: '{self.required}'.")
        if document.get("model") != "default":
            return self._error(404, "NotFoundError", f"The model `{document.get('model')}` does not exist.")
        if self._granted("busy"):
            return self._error(429, "rate_limit_exceeded", "Rate limit reached for requests")
        return self._generation(document)

    def _generation(self, document: dict[str, Any]) -> Answer:
        result = self._generate(document["prompt"], document.get("seed"))
        if self._granted("failure"):
            return self._error(500, "server_error", "The server had an error while processing your request.")
        image = base64.b64encode(self._whole_or_torn(result)).decode()
        return said({"created": int(moment()), "data": [{"b64_json": image}] * int(document.get("n", 1))})

    @staticmethod
    def _error(status: int, kind: str, message: str) -> Answer:
        return said({"error": {"message": message, "type": kind, "param": None, "code": kind}}, status)


class Chat(Images):
    """An OpenAI-style chat server; its failure is an answer that was cut off, with a 200."""

    preset = "openai-chat"
    extension = "txt"
    path = "/v1/chat/completions"
    required = "messages"

    @staticmethod
    def make(label: str) -> bytes:
        return f"Of {label} there is much to say, and this is the end of it.".encode()

    def _generation(self, document: dict[str, Any]) -> Answer:
        result = self._generate(document["messages"][-1]["content"], document.get("seed"))
        cut = self._granted("failure")
        message = {"role": "assistant", "content": (half(result) if cut else result).decode()}
        choice = {"index": 0, "message": message, "finish_reason": "length" if cut else "stop"}
        whole = said({"id": "chatcmpl-1", "object": "chat.completion", "model": "default", "choices": [choice]})
        assert isinstance(whole.body, bytes)
        return Answer(200, self._whole_or_torn(whole.body), "application/json")


class Stability(Simulated):
    """Stability AI's Stable Fast 3D."""

    preset = "stability-3d"
    seeded = False
    key = "sk-simulated"

    def serve(self, call: Call) -> Answer:
        if (call.method, call.path) != ("POST", "/v2beta/3d/stable-fast-3d"):
            return self._error(404, "not_found", "The requested resource was not found")
        self._count("submissions")
        if self._granted("busy"):
            return self._error(429, "rate_limit_exceeded", "You have made more than 150 requests in 10 seconds.")
        if "image" not in call.form[1]:
            return self._error(400, "bad_request", "image: is required")
        prompt = _image_named(call.form[1]["image"], self._error(400, "bad_request", "image: is not an image"))
        result = self._generate(prompt, None)
        if self._granted("failure"):
            return self._error(500, "internal_error", "An unexpected server error has occurred")
        return Answer(200, self._whole_or_torn(result), "model/gltf-binary")

    def unauthorized(self) -> Answer:
        return self._error(401, "unauthorized", "missing or invalid authorization header")

    @staticmethod
    def _error(status: int, name: str, *words: str) -> Answer:
        return said({"id": "4212a4b66fbe1cedca4bf2133d35dca5", "name": name, "errors": words}, status)


class KServe(Simulated):
    """Triton or MLServer with a model called ``model`` that takes an image and a seed and gives base64."""

    preset = "kserve-v2"

    def serve(self, call: Call) -> Answer:
        match call.method, call.path:
            case "GET", "/v2/health/ready":
                self._count("probes")
                return Answer(200)
            case "POST", "/v2/models/model/infer":
                return self._generation(call.document)
        return said({"error": f"Request for unknown model: {call.path} is not found"}, 404)

    def _generation(self, document: Any) -> Answer:
        self._count("submissions")
        if self._granted("busy"):
            return said({"error": "Exceeds maximum queue size"}, 503)
        tensors = {tensor["name"]: tensor for tensor in (document or {}).get("inputs", [])}
        for name, kind in (("image", "BYTES"), ("seed", "INT64")):
            if tensors.get(name, {}).get("datatype") != kind:
                return said({"error": f"[request id: 1] expected input '{name}' of {kind}"}, 400)
        if not isinstance(tensors["seed"]["data"][0], int):
            return said({"error": "Unable to parse 'data': attempt to access JSON non-int64"}, 400)
        prompt = _base64_image(tensors["image"]["data"][0], lambda words: said({"error": words}, 400))
        result = self._generate(prompt, tensors["seed"]["data"][0])
        if self._granted("failure"):
            return said({"error": "in ensemble 'model', Failed to process the request(s)"}, 500)
        content = base64.b64encode(self._whole_or_torn(result)).decode()
        output = {"name": "result", "datatype": "BYTES", "shape": [1], "data": [content]}
        return said({"model_name": "model", "model_version": "1", "outputs": [output]})


class Cog(Simulated):
    """A Cog container: a failed prediction is a 200, a full server says "failed" with a 409."""

    preset = "cog"

    def serve(self, call: Call) -> Answer:
        match call.method, call.path:
            case "GET", "/health-check":
                self._count("probes")
                return said({"status": "BUSY" if self._gpu.locked() else "READY", "setup": {"status": "succeeded"}})
            case "POST", "/predictions":
                return self._prediction(call.document)
        return self.not_found()

    def _prediction(self, document: Any) -> Answer:
        self._count("submissions")
        given = (document or {}).get("input", {})
        if "image" not in given:
            raise missing("input", "image")
        if self._granted("busy") or self._gpu.locked():
            return said({"error": "At capacity - all prediction slots busy", "status": "failed"}, 409)
        try:
            prompt = name_in_data_url(given["image"])
        except ValueError as error:
            return said({"id": "p1", "error": str(error), "logs": "", "status": "failed", "metrics": {}})
        result = self._generate(prompt, given.get("seed"))
        if self._granted("failure"):
            return said({"id": "p1", "error": "CUDA out of memory", "logs": "", "status": "failed", "metrics": {}})
        content = base64.b64encode(self._whole_or_torn(result)).decode()
        output = f"data:model/gltf-binary;base64,{content}"
        return said(
            {"id": "p1", "output": output, "logs": "", "status": "succeeded", "metrics": {"predict_time": 0.02}}
        )
