"""A LitServe API that answers with a file: ``python litserve_api.py PORT``."""

import sys

import litserve as ls
from fastapi import Response
from made import SLOW_S, make


class Maker(ls.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request):
        return request["image"].file.read(), int(request["seed"])

    def predict(self, given):
        return make(*given)

    def encode_response(self, output):
        return Response(output, media_type="model/gltf-binary")


if __name__ == "__main__":
    server = ls.LitServer(Maker(), accelerator="cpu", timeout=SLOW_S / 3)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
