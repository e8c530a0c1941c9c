"""Servers that take a job, are asked how it is, and then give its result."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

from simulated.artefacts import name_in, name_in_data_url
from simulated.base import Answer, Call, Job, Jobs, Refused, Storage, moment, said
from simulated.sync import FULL, Splat


class HunyuanJob(Jobs):
    """Hunyuan3D-2's /send: a dead job and an unknown one are "processing" for ever."""

    preset = "hunyuan3d-job"

    def serve(self, call: Call) -> Answer:
        if (call.method, call.path) == ("POST", "/send"):
            return self._send(call.document)
        if call.method == "GET" and call.path.startswith("/status/"):
            job = self._asked(call.path.removeprefix("/status/"))
            if job is None or job.state != "done":
                return said({"status": "processing"})
            self._count("fetches")
            content = base64.b64encode(self._whole_or_torn(job.result)).decode()
            return said({"status": "completed", "model_base64": content})
        return self.not_found()

    def _send(self, document: Any) -> Answer:
        if self._granted("busy"):
            return FULL
        if not isinstance(document, dict):
            return Splat.CRASHED
        try:
            prompt = name_in(base64.b64decode(str(document.get("image")), validate=True))
        except ValueError:
            prompt = None  # its thread dies of it; the one who sent it is told an id all the same
        job = self._submit(prompt or "?", document.get("seed", 1234))
        job.fails = job.fails or prompt is None
        return said({"uid": job.id})


class Comfy(Jobs):
    """ComfyUI with the nodes of the preset's graph; its history is ``{}`` for what is not done, or not known."""

    preset = "comfyui"

    def __init__(self, generation_s: float = 0.02) -> None:
        self.inputs: dict[str, bytes] = {}
        super().__init__(generation_s)

    def serve(self, call: Call) -> Answer:
        match call.method, call.path:
            case "GET", "/system_stats":
                self._count("probes")
                return said({"system": {"comfyui_version": "0.3.60"}, "devices": []})
            case "POST", "/upload/image":
                return self._upload(call.form[1])
            case "POST", "/prompt":
                return self._queue(call.document)
            case "GET", "/view":
                return self._view(call.query)
        if call.method == "GET" and call.path.startswith("/history/"):
            return self._history(call.path.removeprefix("/history/"))
        return Answer(404, b"404: Not Found", "text/plain")

    def _upload(self, files: dict[str, bytes]) -> Answer:
        if "image" not in files:
            return Answer(400)
        with self._guard:
            name = f"image-{len(self.inputs)}.png"
            self.inputs[name] = files["image"]
        return said({"name": name, "subfolder": "", "type": "input"})

    def _queue(self, document: Any) -> Answer:
        if self._granted("busy"):
            return FULL
        if not isinstance(document, dict) or "prompt" not in document:
            return said({"error": "no prompt", "node_errors": []}, 400)
        nodes = {node["class_type"]: node["inputs"] for node in document["prompt"].values()}
        image, seed = nodes.get("LoadImage", {}).get("image"), nodes.get("KSampler", {}).get("seed")
        if "SaveGLB" not in nodes:
            return self._invalid("prompt_no_outputs", "Prompt has no outputs")
        if image not in self.inputs or not isinstance(seed, int):
            return self._invalid("prompt_outputs_failed_validation", "Prompt outputs failed validation")
        job = self._submit(name_in(self.inputs[image]), seed)
        return said({"prompt_id": job.id, "number": self.submissions, "node_errors": {}})

    @staticmethod
    def _invalid(kind: str, message: str) -> Answer:
        error = {"type": kind, "message": message, "details": "", "extra_info": {}}
        return said({"error": error, "node_errors": {}}, 400)

    def _history(self, identity: str) -> Answer:
        job = self._asked(identity)
        if job is None or job.state == "waiting":
            return said({})
        if job.state == "failed":
            message = ["execution_error", {"exception_message": "CUDA out of memory"}]
            status = {"status_str": "error", "completed": False, "messages": [message]}
            return said({job.id: {"outputs": {}, "status": status}})
        file = {"filename": f"{job.id}_00001_.glb", "subfolder": "runner", "type": "output"}
        status = {"status_str": "success", "completed": True, "messages": []}
        return said({job.id: {"outputs": {"9": {"3d": [file]}}, "status": status}})

    def _view(self, query: dict[str, str]) -> Answer:
        self._count("fetches")
        job = self.jobs.get(query.get("filename", "").removesuffix("_00001_.glb"))
        if job is None or query.get("subfolder") != "runner" or query.get("type") != "output":
            return Answer(404)
        return Answer(200, self._whole_or_torn(job.result))


class RunPod(Jobs):
    """A RunPod endpoint whose worker takes an image and a seed and returns base64; a failed job is a 200."""

    preset = "runpod"
    key = "rpa_simulated"

    def serve(self, call: Call) -> Answer:
        if (call.method, call.path) == ("GET", "/health"):
            self._count("probes")
            return said({"jobs": {"completed": 1, "failed": 0}, "workers": {"idle": 1, "running": 0}})
        if (call.method, call.path) == ("POST", "/run"):
            return self._run(call.document)
        if call.method == "GET" and call.path.startswith("/status/"):
            return self._status(call.path.removeprefix("/status/"))
        return said({"error": "not found"}, 404)

    def _run(self, document: Any) -> Answer:
        if self._granted("busy"):
            return said({"error": "too many requests"}, 429)
        if not isinstance(document, dict) or "input" not in document:
            return said({"error": "bad request: input is required"}, 400)
        try:
            prompt = name_in(base64.b64decode(str(document["input"].get("image")), validate=True))
        except ValueError:
            prompt = None  # the worker finds out
        job = self._submit(prompt or "?", document["input"].get("seed"))
        job.fails = job.fails or prompt is None
        return said({"id": job.id, "status": "IN_QUEUE"})

    def _status(self, identity: str) -> Answer:
        job = self._asked(identity)
        if job is None:
            return said({"error": "request does not exist"}, 404)
        if job.state == "waiting":
            return said({"id": job.id, "status": "IN_PROGRESS", "delayTime": 12})
        if job.state == "failed":
            return said({"id": job.id, "status": "FAILED", "error": "CUDA out of memory", "executionTime": 20})
        self._count("fetches")
        output = base64.b64encode(self._whole_or_torn(job.result)).decode()
        return said({"id": job.id, "status": "COMPLETED", "output": output, "executionTime": 20})


class Hosted(Jobs):
    """A paid service: results are signed links to a store of another host, which wants no credentials."""

    def __init__(self, generation_s: float = 0.02) -> None:
        self._store = Storage(self)
        super().__init__(generation_s)

    def __exit__(self, *arguments: object) -> None:
        super().__exit__(*arguments)
        self._store.__exit__()

    def _link(self, job: Job) -> str:
        return f"{self._store.url}/{job.id}.glb?Signature=x&Expires={int(moment()) + 300}"

    def file(self, path: str) -> Answer:
        self._count("fetches")
        job = self.jobs.get(path.strip("/").removesuffix(".glb"))
        return Answer(200, self._whole_or_torn(job.result)) if job else super().file(path)


class Replicate(Hosted):
    """Replicate: 201 for a new prediction, a link for its output."""

    preset = "replicate"
    key = "r8_simulated"

    def serve(self, call: Call) -> Answer:
        if (call.method, call.path) == ("POST", "/v1/predictions"):
            return self._create(call.document)
        if call.method == "GET" and call.path.startswith("/v1/predictions/"):
            job = self._asked(call.path.removeprefix("/v1/predictions/"))
            return said(self._prediction(job)) if job else said({"detail": "Not found.", "status": 404}, 404)
        return said({"detail": "Not found.", "status": 404}, 404)

    def _create(self, document: Any) -> Answer:
        if self._granted("busy"):
            words = "Request was throttled. Expected available in 1 second."
            return said({"detail": words, "status": 429}, 429, Retry_After="1")
        given = (document or {}).get("input", {})
        if "version" not in (document or {}) or "image" not in given:
            return self._invalid("version and input.image are required")
        try:
            job = self._submit(name_in_data_url(given["image"]), given.get("seed"))
        except ValueError as error:
            return self._invalid(str(error))
        return said(self._prediction(job) | {"status": "starting"}, 201)

    @staticmethod
    def _invalid(words: str) -> Answer:
        return said({"title": "Input validation failed", "detail": words, "status": 422, "invalid_fields": []}, 422)

    def unauthorized(self) -> Answer:
        words = "You did not pass a valid authentication token"
        return said({"title": "Unauthenticated", "detail": words, "status": 401}, 401)

    def _prediction(self, job: Job) -> dict[str, Any]:
        status = {"waiting": "processing", "done": "succeeded", "failed": "failed"}[job.state]
        error = "CUDA out of memory" if job.state == "failed" else None
        output = self._link(job) if job.state == "done" else None
        urls = {"get": f"{self.url}/v1/predictions/{job.id}"}
        return {"id": job.id, "status": status, "output": output, "error": error, "urls": urls}


class Tripo(Hosted):
    """Tripo3D: every answer holds a code, 0 for well."""

    preset = "tripo3d"
    key = "tsk_simulated"

    def __init__(self, generation_s: float = 0.02) -> None:
        self.uploads: dict[str, bytes] = {}
        super().__init__(generation_s)

    def serve(self, call: Call) -> Answer:
        match call.method, call.path:
            case "POST", "/upload":
                return self._upload(call.form[1])
            case "POST", "/task":
                return self._create(call.document)
        if call.method == "GET" and call.path.startswith("/task/"):
            job = self._asked(call.path.removeprefix("/task/"))
            return self._task(job) if job else self._error(404, 2001, "The task is not found")
        return self._error(404, 1006, "Not found")

    @staticmethod
    def _error(status: int, code: int, message: str, **headers: str) -> Answer:
        return said({"code": code, "message": message, "suggestion": "Read the documentation"}, status, **headers)

    def unauthorized(self) -> Answer:
        return self._error(401, 1002, "Authentication failed")

    def too_many(self) -> Answer:
        return self._error(429, 2000, "You have exceeded the limit of generation", Retry_After="1")

    def _upload(self, files: dict[str, bytes]) -> Answer:
        if "file" not in files:
            return self._error(400, 2003, "The input file is empty")
        with self._guard:
            token = f"token-{len(self.uploads)}"
            self.uploads[token] = files["file"]
        return said({"code": 0, "data": {"image_token": token}})

    def _create(self, document: Any) -> Answer:
        if self._granted("busy"):
            return self.too_many()
        given = document or {}
        if given.get("type") != "image_to_model" or given.get("file", {}).get("type") not in ("jpg", "png", "webp"):
            return self._error(400, 1004, "One or more of your parameter is invalid")
        image = self.uploads.get(given["file"].get("file_token"))
        if image is None or not isinstance(given.get("model_seed", 0), int):
            return self._error(400, 1004, "One or more of your parameter is invalid")
        job = self._submit(name_in(image), given.get("model_seed"))
        return said({"code": 0, "data": {"task_id": job.id}})

    def _task(self, job: Job) -> Answer:
        status = {"waiting": "running", "done": "success", "failed": "failed"}[job.state]
        data: dict[str, Any] = {"task_id": job.id, "type": "image_to_model", "status": status, "output": {}}
        if job.state == "done":
            data["output"] = {"pbr_model": self._link(job)}
        if job.state == "failed":
            data |= {"error_code": 1001, "error_msg": "Fatal error on server side"}
        return said({"code": 0, "data": data})


class Meshy(Hosted):
    """Meshy: 202 for a new task, no seed."""

    preset = "meshy"
    seeded = False
    key = "msy_simulated"
    _PATH = "/openapi/v1/image-to-3d"

    def serve(self, call: Call) -> Answer:
        if (call.method, call.path) == ("POST", self._PATH):
            return self._create(call.document)
        if call.method == "GET" and call.path.startswith(f"{self._PATH}/"):
            job = self._asked(call.path.removeprefix(f"{self._PATH}/"))
            return said(self._task(job)) if job else said({"message": "Task not found"}, 404)
        return said({"message": "NoMatchingRoute"}, 404)

    def unauthorized(self) -> Answer:
        return said({"message": "Invalid API key"}, 401)

    def too_many(self) -> Answer:
        return said({"message": "RateLimitExceeded"}, 429)

    def _create(self, document: Any) -> Answer:
        if self._granted("busy"):
            return said({"message": "NoMoreConcurrentTasks"}, 429)
        try:
            job = self._submit(name_in_data_url((document or {}).get("image_url", "")), None)
        except ValueError as error:
            return said({"message": f"Invalid image_url: {error}"}, 400)
        return said({"result": job.id}, 202)

    def _task(self, job: Job) -> dict[str, Any]:
        status = {"waiting": "IN_PROGRESS", "done": "SUCCEEDED", "failed": "FAILED"}[job.state]
        links = {"glb": self._link(job)} if job.state == "done" else {}
        words = "The generation failed" if job.state == "failed" else ""
        return {"id": job.id, "status": status, "model_urls": links, "task_error": {"message": words}}


class Gradio(Jobs):
    """A Gradio app with the function ``predict``: an image and a seed in, a file out. It tells the end once."""

    preset = "gradio"

    def __init__(self, generation_s: float = 0.02) -> None:
        self.uploads: dict[str, bytes] = {}
        super().__init__(generation_s)

    def serve(self, call: Call) -> Answer:
        match call.method, call.path:
            case "GET", "/config":
                self._count("probes")
                return said({"version": "6.25.0", "api_prefix": "/gradio_api", "dependencies": []})
            case "POST", "/gradio_api/upload":
                return self._upload(call.form[1])
            case "POST", "/gradio_api/call/predict":
                return self._call(call.document)
        if call.method == "GET" and call.path.startswith("/gradio_api/call/predict/"):
            return self._events(call.path.rpartition("/")[2])
        if call.method == "GET" and call.path.startswith("/gradio_api/file="):
            return self._file(call.path.rpartition("/")[2])
        return self.not_found()

    def _upload(self, files: dict[str, bytes]) -> Answer:
        if "files" not in files:
            return said([])
        with self._guard:
            path = f"/tmp/gradio/{len(self.uploads):040x}/image.png"
            self.uploads[path] = files["files"]
        return said([path])

    def _call(self, document: Any) -> Answer:
        if self._granted("busy"):
            return said({"detail": "Queue is full. Max size is 1 and size is 1."}, 503)
        given = (document or {}).get("data")
        if not isinstance(given, list):
            detail = [{"type": "missing", "loc": ["body", "data"], "msg": "Field required", "input": document}]
            return said({"detail": detail}, 422)
        file, seed = [*given, None, None][:2]
        image = self.uploads.get((file or {}).get("path", ""))
        typed = (file or {}).get("meta") == {"_type": "gradio.FileData"}
        job = self._submit(name_in(image) if image and typed else "?", seed)
        job.fails = job.fails or not image or not typed
        return said({"event_id": job.id})

    def _events(self, identity: str) -> Answer:
        job = self._asked(identity)
        return Answer(200, self._stream(job), "text/event-stream; charset=utf-8")

    def _stream(self, job: Job | None) -> Iterator[bytes]:
        if job is None:
            yield _event("error", "404: Not Found")
            return
        yield _event("heartbeat", None)
        if self._granted("cut"):
            return
        while job.told or not job.over.wait(0.01):
            if self._closed.wait(0.01):
                return
            yield _event("heartbeat", None)
        job.told = True
        if job.state == "failed":
            yield _event("error", {"error": "CUDA out of memory"})
            return
        path = f"/tmp/gradio/{job.id}/{job.id}.glb"
        file = {"path": path, "url": f"{self.url}/gradio_api/file={path}", "orig_name": "model.glb"}
        yield _event("generating", [None])
        yield _event("complete", [{**file, "meta": {"_type": "gradio.FileData"}}])

    def _file(self, name: str) -> Answer:
        self._count("fetches")
        job = self.jobs.get(name.removesuffix(".glb"))
        if job is None:
            raise Refused(said({"detail": "File not allowed"}, 403))
        return Answer(200, self._whole_or_torn(job.result), "model/gltf-binary")


def _event(name: str, document: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(document)}\n\n".encode()
