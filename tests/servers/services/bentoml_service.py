"""A BentoML service that takes one request at a time, and one with tasks: ``bentoml serve bentoml_service:Maker``."""

from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType
from made import make

Model = Annotated[bytes, ContentType("model/gltf-binary")]


@bentoml.service(traffic={"max_concurrency": 1, "timeout": 30})
class Maker:
    @bentoml.api
    def generate(self, image: Path, seed: int) -> Model:
        return make(image.read_bytes(), seed)


@bentoml.service(traffic={"max_concurrency": 2, "timeout": 30})
class Tasks:
    @bentoml.task
    def generate(self, image: Path, seed: int) -> Model:
        return make(image.read_bytes(), seed)
