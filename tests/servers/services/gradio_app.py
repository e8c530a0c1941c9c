"""A Gradio app with a queue of one: ``python gradio_app.py`` on GRADIO_SERVER_PORT."""

import tempfile
from pathlib import Path

import gradio as gr
from made import make


def generate(image, seed):
    try:
        model = make(Path(image).read_bytes(), seed)
    except RuntimeError as error:
        raise gr.Error(str(error)) from error
    with tempfile.NamedTemporaryFile(suffix=".glb", delete=False) as file:
        file.write(model)
    return file.name


demo = gr.Interface(generate, [gr.Image(type="filepath"), gr.Number(precision=0)], gr.Model3D(), api_name="generate")

if __name__ == "__main__":
    demo.queue(max_size=1, default_concurrency_limit=1).launch()
