"""A Cog predictor: ``COG_PREDICT_TYPE_STUB=cog_predict.py:Maker python -m cog.server.http`` on PORT."""

import tempfile
import time

from cog import BasePredictor, Input, Path
from made import make


class Maker(BasePredictor):
    def setup(self) -> None:
        time.sleep(1)  # as a model is loaded

    def predict(self, image: Path = Input(), seed: int = Input(default=0)) -> Path:  # noqa: B008
        with open(image, "rb") as file:
            model = make(file.read(), seed)
        with tempfile.NamedTemporaryFile(suffix=".glb", delete=False) as file:
            file.write(model)
        return Path(file.name)


class Broken(Maker):
    def setup(self) -> None:
        raise RuntimeError("no weights")
