"""A RunPod worker, with RunPod's own local API: ``python runpod_handler.py --rp_serve_api``."""

import base64

import runpod
from made import make


def handler(job):
    given = job["input"]
    return base64.b64encode(make(base64.b64decode(given["image"]), given["seed"])).decode()


if __name__ == "__main__":
    runpod.serverless.start({"handler": handler})
