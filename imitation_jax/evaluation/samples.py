"""A few answers during training, for the eye: what the model says now to the first user turns of its data."""

from collections.abc import Callable

from absl import logging
from ml_collections import ConfigDict

from imitation_jax.data import tokens
from imitation_jax.data.rows import Rejected
from imitation_jax.inference.engine import Engine, GenerateRequest
from imitation_jax.models.load import LoadedModel


def make_sampler(config: ConfigDict) -> Callable:
    """An evaluator for the training loop that answers `config.evaluate.samples` prompts greedily.

    The prompts are the first user turns of the validation dialogues, else of the training dialogues. Answers go to the
    log and to TensorBoard's text page.
    """
    conversations = []
    for _, dialogue in tokens.read(config.data.validation or config.data.path):
        if len(conversations) == config.evaluate.samples:
            break
        if not isinstance(dialogue, Rejected):
            turns = dialogue["messages"]
            first = next(index for index, turn in enumerate(turns) if turn["role"] == "user")
            conversations.append(turns[: first + 1])

    def sample(model: LoadedModel, step: int) -> tuple[dict[str, float], dict[str, str]]:
        engine = Engine(model, batch_size=max(len(conversations), 1))
        requests = [
            GenerateRequest(prompt=model.template.prompt_ids(turns), max_new_tokens=config.evaluate.max_new_tokens)
            for turns in conversations
        ]
        texts = {}
        for index, (turns, answer) in enumerate(zip(conversations, engine.generate(requests), strict=True)):
            texts[f"sample/{index}"] = f"{turns[-1]['content']}\n\n---\n\n{answer.text}"
            logging.info("step %d, %.60r: %.200r", step, turns[-1]["content"], answer.text)
        return {}, texts

    return sample
