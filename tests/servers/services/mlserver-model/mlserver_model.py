"""An MLServer model: ``mlserver start mlserver-model``."""

import asyncio
import base64

from made import make
from mlserver import MLModel
from mlserver.codecs import Base64Codec
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Maker(MLModel):
    async def load(self) -> bool:
        await asyncio.sleep(1)  # as a model is loaded
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        given = {tensor.name: tensor for tensor in payload.inputs}
        image, seed = Base64Codec.decode_input(given["image"])[0], given["seed"].data[0]
        model = base64.b64encode(await asyncio.to_thread(make, image, seed)).decode()
        output = ResponseOutput(
            name="model", shape=[1, 1], datatype="BYTES", parameters={"content_type": "base64"}, data=[model]
        )
        return InferenceResponse(model_name=self.name, outputs=[output])
