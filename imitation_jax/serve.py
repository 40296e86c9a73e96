"""Serves models over HTTP as OpenAI's API does, with a page to chat with two of them side by side.

    python -m imitation_jax.serve --model=SPEC[,SPEC] --port=8000

Open http://127.0.0.1:8000/ in a browser, or give http://127.0.0.1:8000/v1 to any OpenAI client as its base URL:
/v1/models, /v1/chat/completions and /v1/completions are there, with stream, n, stop, seed, logprobs and echo. A model
is called by the last part of its path. Many requests are written side by side; further ones wait, and beyond the queue
the answer is 429.

The environment variable IMITATION_API_KEY is the key that clients must send. Without it only this machine is served.
SIGTERM lets requests under way finish for half a minute, then exits 0.
"""

import os

from imitation_jax.core import command

MODEL = command.define_string(
    "model", None, "hf:DIR, gguf:FILE or orbax:WORKDIR[@STEP]; several with commas or globs.", required=True
)
HOST = command.define_string("host", "127.0.0.1", "Address to serve; others than this machine's need a key.")
PORT = command.define_integer("port", 8000, "0 takes a free one; the log says which.")
TEMPLATE = command.define_string("template", "model", "Chat template: the model's own, plain (USER:) or a .jinja file.")
DTYPE = command.define_string("compute_dtype", "auto", "float32, bfloat16, or auto: what the hardware multiplies.")
MESH = command.define_string("mesh", "fsdp=-1", "Mesh of devices, such as fsdp=2,tensor=4.")
MEMORY = command.define_float("memory_gib", 0.0, "Of a device, for each model's caches; 0 chooses by itself.")
ROWS = command.define_integer("rows", 16, "Batch size of each model; fewer where memory is short.")
CONTEXT = command.define_integer(
    "context", 0, "Most tokens of a prompt and its answer; 0 for 2,048, or all that a model has."
)
QUEUE = command.define_integer("queue", 256, "Texts that may wait; a request beyond them is answered 429.")
BYTES = command.define_integer("request_bytes", 2**20, "Largest request; a larger one is answered 413.")
SECONDS = command.define_float("seconds", 600.0, "Longest time for a request, its wait included; then 503.")


def main() -> int:
    from imitation_jax.core.comma_list import comma_list
    from imitation_jax.core.files import cache_dir
    from imitation_jax.evaluation.model_sources import named_sources
    from imitation_jax.parallel.precision import configure_jax
    from imitation_jax.serving import server

    configure_jax(cache_dir())
    settings = server.Settings(
        host=HOST.value,
        port=PORT.value,
        template=TEMPLATE.value,
        compute_dtype=DTYPE.value,
        mesh=MESH.value,
        memory_gib=MEMORY.value,
        rows=ROWS.value,
        context=CONTEXT.value,
        queue=QUEUE.value,
        request_bytes=BYTES.value,
        seconds=SECONDS.value,
    )
    sources = named_sources(comma_list(MODEL.value))
    server.serve(sources, settings, os.environ.get(server.KEY) or None)
    return 0


if __name__ == "__main__":
    command.run(main)
