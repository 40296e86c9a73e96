"""A few answers during training, for the eye: what the model says so far to the first user turns of its data."""

import itertools
from collections.abc import Callable, Sequence

from absl import logging
from ml_collections import ConfigDict

from imitation_jax.core.json_rows import Rejected
from imitation_jax.data.input import token_cache
from imitation_jax.models.loaded_model import LoadedModel
from imitation_jax.training.config import sources

LOOK_AT = 1000  # rows of a dataset: one of plain text holds no dialogue
# (model, prompts as token ids, max_new_tokens) -> the texts that continue them
Generate = Callable[[LoadedModel, Sequence[Sequence[int]], int], list[str]]


def make_sampler(config: ConfigDict, generate: Generate) -> Callable:
    """An evaluator for the training loop that has `config.evaluate.samples` prompts answered.

    The prompts are the first user turns of the validation dialogues, else of the training dialogues (of a mixture, of
    the first dataset with dialogues); those that leave no room for an answer, or on which the template fails, are left
    out. Answers go to the log and to TensorBoard's text page.

    Args:
      generate: answers them; training does not know inference, so the command hands it over.
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
    prompts: list[list[int]] = []

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
            prompts.append(prompt)

    def sample(model: LoadedModel, step: int) -> tuple[dict[str, float], dict[str, str]]:
        render(model)  # only now is there a template; the first call renders all
        answers = generate(model, prompts, config.evaluate.max_new_tokens)
        texts = {}
        for index, (question, answer) in enumerate(zip(questions, answers, strict=True)):
            texts[f"sample/{index}"] = f"{question}\n\n---\n\n{answer}"
            logging.info("step %d, %.60r: %.200r", step, question, answer)
        return {}, texts

    return sample
