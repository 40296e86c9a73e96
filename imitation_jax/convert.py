"""Converts a model: Hugging Face folder, GGUF file or Orbax workdir in; Hugging Face folder or Orbax workdir out.

    python -m imitation_jax.convert --from=gguf:FILE|hf:DIR|orbax:DIR[@STEP] --to=hf:DIR|orbax:DIR

Weights are written in float32, de-quantised where the source is quantised, with tokenizer and chat template.
transformers loads what --to=hf: writes.
"""

from imitation_jax.core import command

FROM = command.define_string("from", None, "Model to read: hf:DIR, gguf:FILE or orbax:WORKDIR[@STEP].", required=True)
TO = command.define_string("to", None, "Where to write: hf:DIR or orbax:DIR.", required=True)


def main() -> int:
    from absl import logging

    from imitation_jax.models.load import load_model, save_model

    save_model(load_model(FROM.value), TO.value)
    logging.info("%s -> %s", FROM.value, TO.value)
    return 0


if __name__ == "__main__":
    command.run(main)
