"""A few answers during training, for the eye: what the model says now to the first user turns of its data."""

import itertools
from collections.abc import Callable

from absl import logging
from ml_collections import ConfigDict

from imitation_jax.core.json_rows import Rejected
from imitation_jax.data.input import token_cache
from imitation_jax.inference.engine import Engine
from imitation_jax.inference.requests import GenerateRequest
from imitation_jax.models.loaded_model import LoadedModel
from imitation_jax.training.config import sources

LOOK_AT = 1000  # rows of a dataset: one of plain text holds no dialogue


def make_sampler(config: ConfigDict) -> Callable:
    """An evaluator for the training loop that answers `config.evaluate.samples` prompts greedily.

    The prompts are the first user turns of the validation dialogues, else of the training dialogues (of a mixture, of
    the first dataset with dialogues); those that leave no room for an answer, or on which the template fails, are left
    out. Answers go to the log and to TensorBoard's text page.
    """
    given = config.data.validation or config.data.path
    paths = [given] if given else [source.path for source in sources(config).values()]
    rows = (row for path in paths for _, row in itertools.islice(token_cache.read(path), LOOK_AT))
    dialogues = (row for row in rows if not isinstance(row, Rejected))
    conversations = []
    for dialogue in itertools.islice(dialogues, config.evaluate.samples):
        turns = dialogue["messages"]
        first = next(index for index, turn in enumerate(turns) if turn["role"] == "user")
        conversations.append(turns[: first + 1])
    questions: list[str] = []
    requests: list[GenerateRequest] = []

    def render(model: LoadedModel) -> None:
        while conversations:
            turns = conversations.pop(0)
            try:
                prompt = model.template.prompt_ids(turns)
                if len(prompt) + config.evaluate.max_new_tokens > model.config.max_position_embeddings:
                    raise ValueError(f"{len(prompt)} tokens and their answer do not fit the model's context")
            except Exception as error:  # a template is a program that the user wrote: it may raise anything
                logging.warning("no sample of %.60r: %s", turns[-1]["content"], error)
                continue
            questions.append(turns[-1]["content"])
            requests.append(GenerateRequest(prompt, config.evaluate.max_new_tokens))

    def sample(model: LoadedModel, step: int) -> tuple[dict[str, float], dict[str, str]]:
        render(model)  # only now is there a template; the first call renders all
        engine = Engine(model, batch_size=max(len(requests), 1))
        texts = {}
        for index, (question, answer) in enumerate(zip(questions, engine.generate(requests), strict=True)):
            texts[f"sample/{index}"] = f"{question}\n\n---\n\n{answer.text}"
            logging.info("step %d, %.60r: %.200r", step, question, answer.text)
        return {}, texts

    return sample
