"""This project's engine as a model of lm-evaluation-harness, which then shares prefixes in any of its tasks.

Importing this module needs lm-eval, and makes the model known to it as "imitation_jax".
"""

import logging as std_logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import logging
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from imitation_jax.core.files import cache_dir
from imitation_jax.core.progress import ticks
from imitation_jax.evaluation.by_item import by_item
from imitation_jax.inference.engine import Engine
from imitation_jax.inference.requests import GenerateRequest, ScoreRequest
from imitation_jax.models.load import load_model
from imitation_jax.parallel.mesh import make_mesh
from imitation_jax.parallel.precision import compute_dtype, configure_jax

MAX_GEN_TOKS = 256
PLACEHOLDER = "\ufdd0"  # a noncharacter, which no text may hold and no template trims
Messages = list[dict[str, Any]]


@register_model("imitation_jax")
class ImitationJax(TemplateLM):
    """What lm-eval asks of a model, answered by `Engine`, which is given all requests of a kind at once.

    Encoding, truncation and stops are those of lm-eval's `hf` back end, so that numbers are comparable item by item.
    """

    def __init__(
        self,
        model: str = "",
        mesh: str = "fsdp=-1",
        dtype: str = "float32",
        template: str = "model",
        max_length: int | None = None,
        add_bos_token: bool | None = None,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
        **unknown,
    ):
        """Loads the model.

        Args:
          model, mesh, dtype, template, max_length, add_bos_token: see the module.
          batch_size: 1, which lm-eval says where nobody said anything, and "auto" leave it to the engine.
          max_batch_size, device: what lm-eval says to every model. The engine plans its memory itself, and JAX runs on
            all devices of the platform that JAX_PLATFORMS names.

        Raises:
          ValueError, FileNotFoundError: one line that names the argument or the file.
        """
        super().__init__()
        del max_batch_size, device
        if unknown:
            keys = "model, mesh, dtype, template, max_length and add_bos_token"
            raise ValueError(f"model_args: {next(iter(unknown))} is not known; there are {keys}")
        if not model:
            raise ValueError("model_args: needs model=hf:DIR, gguf:FILE or orbax:WORKDIR[@STEP]")
        # Progress lines go where lm-eval's own go.
        logging.set_verbosity(logging.INFO)
        for handler in std_logging.getLogger("lm_eval").handlers:
            logging.get_absl_logger().addHandler(handler)
            logging.get_absl_logger().propagate = False
        configure_jax(cache_dir())
        placed = make_mesh(mesh)
        loaded = load_model(model, placed, template=template)
        left = str(batch_size) == "1" or str(batch_size).startswith("auto")
        options = {} if left else {"batch_size": int(batch_size)}
        self.engine = Engine(loaded, placed, compute_dtype=compute_dtype(dtype).name, **options)
        self._tokenizer = self.engine.tokenizer
        self._source, self._add_bos_token = model, add_bos_token
        positions = self.engine.config.max_position_embeddings
        self.max_length = max_length or positions
        if not 0 < self.max_length <= positions:
            raise ValueError(f"max_length={max_length}: the model has {positions} positions")
        if add_bos_token and self._tokenizer.bos_id is None:
            raise ValueError(f"add_bos_token: the tokenizer of {model} has no BOS token")
        self._prefix_text = self._tokenizer.decode([self.prefix_token_id])
        self._ahead: dict[str, list[int]] = {}

    @property
    def eot_token_id(self) -> int:
        """The end-of-sequence token. Raises ValueError where the tokenizer has none."""
        if self._tokenizer.eos_id is None:
            raise ValueError(f"{self._source}: lm-eval needs a tokenizer with an EOS token")
        return self._tokenizer.eos_id

    @property
    def prefix_token_id(self) -> int:
        """What stands for an empty context: BOS, or EOS where there is none."""
        return self.eot_token_id if self._tokenizer.bos_id is None else self._tokenizer.bos_id

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs) -> list[int]:
        """Ids; where nothing is said, a text that already begins with BOS gets no second one."""
        del kwargs
        if add_special_tokens is not None:
            return self._tokenizer.encode(string, add_special_tokens=add_special_tokens)
        return self._ahead[string] if string in self._ahead else self._encode([string])[0]

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log-likelihood, whether greedy) of each request's (context, continuation)."""
        # The base class splits pairs and encodes text by text; this is the same in parallel and each context once.
        pairs = [request.args for request in requests]
        texts = list(dict.fromkeys(text for context, rest in pairs for text in (context.rstrip(), context + rest)))
        self._ahead = dict(zip(texts, self._encode(texts), strict=True))
        try:
            return super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        finally:
            self._ahead = {}

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of each whole text, in windows of the model's length that do not overlap."""
        texts = [text for (text,) in (request.args for request in requests)]
        windows = [
            [
                (None, *make_disjoint_window(window))
                for window in get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, context_len=1)
            ]
            for ids in self._encode(texts)
        ]
        totals = [0.0] * len(texts)

        def on_text(index: int, answers: list[tuple[float, bool]]) -> None:
            totals[index] = sum(logprob for logprob, _ in answers)
            self.cache_hook.add_partial("loglikelihood_rolling", (texts[index],), totals[index])

        on_window = by_item([len(of_text) for of_text in windows], on_text)
        self._loglikelihood_tokens([window for of_text in windows for window in of_text], disable_tqdm, on_window)
        return totals

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]],
        disable_tqdm: bool = False,
        on_answer: Callable[[int, tuple[float, bool]], None] | None = None,
        **kwargs,
    ) -> list[tuple[float, bool]]:
        del kwargs
        asked = []
        for _, context, rest in requests:
            if len(rest) > self.max_length:
                raise ValueError(f"a continuation of {len(rest)} tokens does not fit max_length={self.max_length}")
            # The last token is not fed, so one more than the model's length fits.
            room = self.max_length + 1 - len(rest)
            asked.append(ScoreRequest(context[-room:], rest))
        cut = sum(len(row.context) < len(request[1]) for row, request in zip(asked, requests, strict=True))
        if cut:
            logging.warning("%d contexts cut from the left to %d tokens", cut, self.max_length)
        with ticks(total=len(asked), desc="scoring", unit="request", lines=not disable_tqdm) as tick:

            def on_result(index: int, score: Any) -> None:
                answer = (score.logprob, score.greedy)
                if requests[index][0] is not None:
                    self.cache_hook.add_partial("loglikelihood", requests[index][0], answer)
                if on_answer:
                    on_answer(index, answer)
                tick()

            scores = self.engine.score(asked, on_result)
        return [(score.logprob, score.greedy) for score in scores]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """What the model writes after each request's context, cut before the first stop string or EOS.

        Sampled texts are a function of lm-eval's --seed (NumPy's part of it) and of a request's place among the others.

        Raises:
          ValueError: a generation setting that the engine does not have, or no room for the new tokens.
        """
        eos = self._tokenizer.decode([self.eot_token_id])
        contexts = [request.args[0] for request in requests]
        seed = int(np.random.randint(1 << 31))
        asked, cut = [], 0
        for index, (ids, request) in enumerate(zip(self._encode(contexts), requests, strict=True)):
            setting = _generation(request.args[1])
            room = self.max_length - setting["max_new_tokens"]
            if room <= 0:
                raise ValueError(f"max_gen_toks={setting['max_new_tokens']}: must be less than {self.max_length}")
            cut += len(ids) > room
            stop = tuple(text for text in handle_stop_sequences(setting.pop("until"), eos) if text)
            asked.append(GenerateRequest(ids[-room:], stop=stop, seed=(seed + index) % (1 << 31), **setting))
        if cut:
            logging.warning("%d prompts cut from the left to make room for new tokens", cut)
        with ticks(total=len(asked), desc="generating", unit="request", lines=not disable_tqdm) as tick:

            def on_result(index: int, generation: Any) -> None:
                self.cache_hook.add_partial("generate_until", requests[index].args, generation.text)
                tick()

            generations = self.engine.generate(asked, on_result)
        return [generation.text for generation in generations]

    @property
    def tokenizer_name(self) -> str:
        """Tells caches of requests apart."""
        return f"imitation_jax-{self._template().fingerprint[:16]}-{self._tokenizer.fingerprint[:16]}"

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The source of the template that is used, or None where none is asked for."""
        return self._template().source if chat_template else None

    def apply_chat_template(self, chat_history: Messages, add_generation_prompt: bool = True) -> str:
        """The text of a dialogue; without the generation prompt its last turn is left open, to be continued.

        Raises:
          ValueError: no template, or it refuses the dialogue.
        """
        try:
            return self._render(chat_history, add_generation_prompt)
        except ValueError as error:
            rest = [message for message in chat_history if message["role"] != "system"]
            if len(rest) == len(chat_history):
                raise
            logging.log_first_n(logging.WARNING, "%s: system messages are left out", 1, error)
            return self._render(rest, add_generation_prompt)

    def _render(self, messages: Messages, add_generation_prompt: bool) -> str:
        template = self._template()
        if add_generation_prompt:
            return template.render(messages, add_generation_prompt=True)
        mark = PLACEHOLDER + " "
        last = messages[-1] | {"content": messages[-1]["content"] + mark}
        before, mark_kept, after = template.render([*messages[:-1], last]).rpartition(PLACEHOLDER)
        if not mark_kept:
            raise ValueError(f"{template.where}: it leaves out the message that is to be continued")
        # As transformers does it: a template that trims messages trims this one too.
        return before if after.startswith(" ") else before.rstrip()

    def _template(self):
        if self.engine.template is None:
            raise ValueError(f"{self._source}: has no chat template; give template=plain or a .jinja file")
        return self.engine.template

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        # lm-eval's command turns this off for the sake of forked workers, of which there are none here.
        os.environ["TOKENIZERS_PARALLELISM"] = "true"
        encoded: list[list[int]] = [[]] * len(texts)
        for special in (False, True):
            places = [i for i, text in enumerate(texts) if self._adds_special(text) == special]
            for i, ids in zip(places, self._tokenizer.encode_batch([texts[i] for i in places], special), strict=True):
                missing = special and self._add_bos_token and ids[:1] != [self._tokenizer.bos_id]
                encoded[i] = [self._tokenizer.bos_id, *ids] if missing else ids
        return encoded

    def _adds_special(self, text: str) -> bool:
        return self._add_bos_token is not False and not text.startswith(self._prefix_text)


def _generation(given: dict[str, Any]) -> dict[str, Any]:
    """lm-eval's generation settings as those of a GenerateRequest, with `until` left in.

    Raises:
      ValueError: naming a setting that the engine does not have.
    """
    kwargs = dict(normalize_gen_kwargs(given, MAX_GEN_TOKS))
    sample, temperature = kwargs.pop("do_sample"), float(kwargs.pop("temperature", 0.0))
    top_p = float(kwargs.pop("top_p", 1.0))
    if sample and not temperature:
        raise ValueError("generation_kwargs: do_sample needs a temperature above 0")
    setting = {
        "until": kwargs.pop("until"),
        "max_new_tokens": kwargs.pop("max_gen_toks"),
        "temperature": temperature if sample else 0.0,
        "top_p": top_p if sample else 1.0,
    }
    unknown = {key: value for key, value in kwargs.items() if (key, value) != ("num_beams", 1)}
    if unknown:
        key, value = next(iter(unknown.items()))
        raise ValueError(
            f"generation_kwargs: {key}={value!r} is not supported; there are until, max_gen_toks, do_sample, "
            "temperature and top_p"
        )
    return setting
