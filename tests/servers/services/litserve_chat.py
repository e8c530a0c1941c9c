"""A LitServe API that speaks like OpenAI's chat: ``python litserve_chat.py PORT``."""

import sys

import litserve as ls


class Chat(ls.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request):
        return request.messages[-1].content

    def predict(self, text):
        if "fails" in text:
            raise RuntimeError("no words for this")
        yield f"You said: {text}"

    def encode_response(self, outputs):
        for text in outputs:
            yield ls.specs.openai.ChatMessage(role="assistant", content=text)


if __name__ == "__main__":
    server = ls.LitServer(Chat(spec=ls.OpenAISpec()), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
