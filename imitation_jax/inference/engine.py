"""The interface of inference: lists of token requests in, scores and generations out.

Requests are checked here. prefixes.py says what is computed together, batches.py makes batches of it within the memory,
score.py and generate.py hold the jitted steps, session.py keeps rows of texts going.
"""

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from imitation_jax.inference import score
from imitation_jax.inference.batches import Runner
from imitation_jax.inference.memory import GIB, power
from imitation_jax.inference.prefixes import Step
from imitation_jax.inference.requests import GenerateRequest, Generation, Score, ScoreRequest, TokenScore
from imitation_jax.inference.sequence import SequenceState
from imitation_jax.inference.session import Session
from imitation_jax.models.loaded_model import LoadedModel


class Engine:
    """Scores and generates with one model.

    Attributes:
      config, tokenizer, template: the model's.
      mesh: where it runs.
    """

    def __init__(
        self,
        model: LoadedModel,
        mesh: Mesh | None = None,
        batch_size: int = 16,
        memory_gib: float = 0.0,
        compute_dtype: str = "float32",
    ):
        """Places the weights.

        Args:
          model: what `load_model` returns.
          mesh: default: the mesh that the weights are on, else one of all devices.
          batch_size: rows that are generated at a time, rounded up to a power of two and to the devices of the batch
            axes; a step of a scored or read text has 64 tokens for each of them.
          memory_gib: of a device, for caches and activations, without the weights; what does not fit runs in smaller
            batches. 0 takes half of what an accelerator has left, or a quarter of a machine's memory on its CPU.
          compute_dtype: "float32" or "bfloat16"; weights of matrix products are kept in it. Norms, softmax and
            log-likelihoods are float32 always.

        Raises:
          ValueError: a setting out of range, or a mesh that does not divide the weights.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: must be 1 or more")
        if not memory_gib >= 0:
            raise ValueError(f"memory_gib={memory_gib}: must be 0 (chosen by itself) or more")
        if compute_dtype not in ("float32", "bfloat16"):
            raise ValueError(f"compute_dtype={compute_dtype!r}: expected float32 or bfloat16")
        self.config, self.tokenizer, self.template = model.config, model.tokenizer, model.template
        # Only EOS ends the text of a model without a chat template.
        eos = frozenset() if model.tokenizer.eos_id is None else frozenset({model.tokenizer.eos_id})
        self._stop_ids = model.template.stop_ids if model.template else eos
        self._runner = Runner(model, mesh, batch_size, memory_gib, compute_dtype)
        self.mesh = self._runner.mesh

    @property
    def chosen(self) -> dict[str, Any]:
        """What became of settings that leave a choice: the mesh and, once a batch has been planned, the memory."""
        chosen: dict[str, Any] = {"mesh": ",".join(f"{axis}={size}" for axis, size in self.mesh.shape.items())}
        if "memory" in vars(self._runner):
            chosen["memory_gib"] = round(self._runner.memory.budget / GIB, 3)
        return chosen

    @property
    def tokens_forwarded(self) -> int:
        """Positions computed so far, padding included."""
        return self._runner.tokens_forwarded

    def score(
        self,
        requests: Sequence[ScoreRequest],
        on_result: Callable[[int, Score], None] | None = None,
        beside: Session | None = None,
    ) -> list[Score]:
        """Log-likelihoods of continuations, in the order of the requests.

        What several requests begin with is computed once, so hand over all there are in one call.

        Args:
          requests: an empty continuation scores 0.0 and is greedy; an empty context stands for the tokenizer's BOS, or
            its EOS where it has no BOS.
          on_result: called with a request's index and score as soon as it is known.
          beside: an open session, whose cache takes a part of the memory.

        Raises:
          ValueError: naming the request: it does not fit the model's context, holds an id that the vocabulary lacks,
            has an empty context and the tokenizer neither BOS nor EOS, or asks for too many alternatives; or one
            sequence does not fit the memory.
        """
        results = _Results(len(requests), on_result)
        # By what is read, the request and the place of the token that comes before its continuation.
        asked: dict[bytes, list[tuple[int, int]]] = defaultdict(list)
        unfinished: dict[int, _PartialScore] = {}
        for index, request in enumerate(requests):
            if not 0 <= (request.alternatives or 0) <= score.ALTERNATIVES:
                raise ValueError(f"request {index}: {request.alternatives} alternatives, at most {score.ALTERNATIVES}")
            if not len(request.continuation):
                results.put(index, Score(0.0, True, 0))
                continue
            context = self._context(request.context, index)
            asked[self._read(context, request.continuation, index)].append((index, len(context) - 1))
            unfinished[index] = _PartialScore(request)
        first = {sequence: min(start for _, start in places) for sequence, places in asked.items()}
        alternatives = score.ALTERNATIVES if any(request.alternatives for request in requests) else 0

        runner = self._runner
        members, steps, _, slots = runner.plan(asked, first, beside.held if beside else 0)
        cache = runner.empty_cache(1, slots)
        for step in steps:
            rows, shape = runner.rows(step)
            pieces, asked_M, count = _asked_tokens(step, shape, members, requests)
            with jax.set_mesh(self.mesh):
                cache, *scored = score.score_step(
                    *runner.model,
                    cache,
                    rows,
                    np.int32(step.slot),
                    asked_M,
                    np.int32(count),
                    alternatives=alternatives,
                    dtype=runner.dtype,
                )
            scored = [np.asarray(array) for array in scored] if pieces else []
            end = 0
            for index, size in pieces:
                start, end = end, end + size
                if result := unfinished[index].add(*(array[start:end] for array in scored)):
                    del unfinished[index]
                    results.put(index, result)
        return results.values

    def generate(
        self, requests: Sequence[GenerateRequest], on_result: Callable[[int, Generation], None] | None = None
    ) -> list[Generation]:
        """Continuations of prompts, in the order of the requests.

        What several prompts begin with is computed once, and the row of a finished text goes to the next prompt, so
        hand over all requests in one call.

        Args:
          requests: an empty prompt stands for the tokenizer's BOS, or its EOS where it has no BOS.
          on_result: called with a request's index and generation as soon as it is known.

        Raises:
          ValueError: naming the request: the prompt is longer than the model's context, holds an id that the vocabulary
            lacks, or is empty and the tokenizer has neither BOS nor EOS; or a setting is out of range, or one sequence
            does not fit the memory.
        """
        results = _Results(len(requests), on_result)
        by_slots: dict[int, list[SequenceState]] = defaultdict(list)
        for index, request in enumerate(requests):
            sequence = self._start(request, index)
            by_slots[power(len(sequence.prompt) + sequence.limit, 128)].append(sequence)
        # A long text needs a long cache, which all rows of a batch would have to have.
        for slots in sorted(by_slots, reverse=True):
            session = self.session(min(self._runner.batch_size, len(by_slots[slots])), slots)
            session.take(by_slots[slots])
            while moved := session.step():
                for sequence, generation in moved:
                    if generation is not None:
                        results.put(sequence.index, generation)
        return results.values

    def session(self, rows: int, slots: int) -> Session:
        """Continuous batching that stays open for further requests.

        Args:
          rows: texts at a time; fewer where the memory does not hold them.
          slots: tokens that a prompt and what is written after it may have together.
        """
        return Session(self._runner, self._start, self._stop_mask, rows, slots)

    def _start(self, request: GenerateRequest, index: int) -> SequenceState:
        """The state of a request of which nothing is read yet."""
        prompt = self._context(request.prompt, index)
        self._check_ids(prompt, index)
        room = self.config.max_position_embeddings - len(prompt)
        if room < 0:
            raise ValueError(
                f"request {index}: a prompt of {len(prompt)} tokens and {request.max_new_tokens} new ones do not "
                f"fit the model's {self.config.max_position_embeddings} positions; shorten the prompt"
            )
        if request.max_new_tokens < 0 or request.temperature < 0 or not 0 < request.top_p <= 1:
            raise ValueError(f"request {index}: max_new_tokens and temperature must be 0 or more, top_p in (0, 1]")
        if "" in request.stop:  # as it is in every text, given in the place of a tuple
            raise ValueError(f"request {index}: stop must be a tuple of strings, none of them empty")
        named = map(self.tokenizer.token_to_id, request.stop)  # special tokens are no part of the decoded text
        stop_ids = frozenset(i for i in named if i in self.tokenizer.special_ids)
        stop_ids |= self._stop_ids if request.stop_ids is None else request.stop_ids
        return SequenceState(index, request, prompt, min(request.max_new_tokens, room), stop_ids, self.tokenizer)

    def _stop_mask(self, stop_ids: frozenset[int], stops: tuple[str, ...]) -> np.ndarray:
        """(V,) bool: stop ids, and all tokens whose own text holds a stop string."""
        stop_mask_V = np.zeros(self.config.vocab_size, bool)
        stop_mask_V[np.array([i for i in stop_ids if 0 <= i < len(stop_mask_V)], int)] = True
        if stops:
            stop_mask_V[: len(self._pieces)] |= [any(stop in piece for stop in stops) for piece in self._pieces]
        return stop_mask_V

    @functools.cached_property
    def _pieces(self) -> list[str]:
        return [self.tokenizer.decode([i]) for i in range(self.tokenizer.vocab_size)]

    def _read(self, context: Sequence[int], continuation: Sequence[int], index: int) -> bytes:
        """The int32 ids that are read to score a continuation: all but its last token."""
        length = len(context) + len(continuation) - 1
        if length > self.config.max_position_embeddings:
            raise ValueError(
                f"request {index}: a context of {len(context)} tokens and a continuation of {len(continuation)} do not "
                f"fit the model's {self.config.max_position_embeddings} positions; shorten the context"
            )
        self._check_ids(continuation, index)
        self._check_ids(context, index)
        read = np.empty(length, np.int32)
        read[: len(context)] = context
        read[len(context) :] = continuation[:-1]
        return read.tobytes()

    def _context(self, ids: Sequence[int], index: int) -> Sequence[int]:
        if len(ids):
            return ids
        first = self.tokenizer.eos_id if self.tokenizer.bos_id is None else self.tokenizer.bos_id
        if first is None:
            raise ValueError(f"request {index}: nothing to continue, and the tokenizer has no BOS or EOS to begin with")
        return [first]

    def _check_ids(self, ids: Sequence[int], index: int) -> None:
        size = self.config.vocab_size
        if not 0 <= min(ids) <= max(ids) < size:
            wrong = next(i for i in ids if not 0 <= i < size)
            raise ValueError(f"request {index}: token id {wrong} is not in the model's vocabulary of {size}")


def generate_texts(model: LoadedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[str]:
    """What continues each prompt (token ids), greedily, in an engine for this one call."""
    engine = Engine(model, batch_size=max(len(prompts), 1))
    return [generation.text for generation in engine.generate([GenerateRequest(p, max_new_tokens) for p in prompts])]


def _asked_tokens(
    step: Step, shape: tuple[int, int], members: list[list[tuple[int, int]]], requests: Sequence[ScoreRequest]
) -> tuple[list[tuple[int, int]], dict[str, np.ndarray], int]:
    """What `score_step` is asked in a step.

    Args:
      step, shape: the step, and that of its rows.
      members: the (request, place before its continuation) that belong to each sequence.

    Returns:
      (request, number of tokens) in the order of the asked tokens, these as `asked_M`, and how many they are.
    """
    pieces, entries = [], []
    for number, row in enumerate(step.rows):
        for part in row.parts:
            stop = part.start + len(part.places)
            for index, start in members[part.sequence]:
                begin = max(start, part.start)
                if begin < stop:
                    targets = requests[index].continuation[begin - start : stop - start]
                    places = part.places[begin - part.start :]
                    pieces.append((index, len(targets)))
                    entries.append(np.stack([np.full_like(places, number), places, np.asarray(targets, np.int32)]))
    count = sum(size for _, size in pieces)
    # A few sizes serve all steps.
    size = max(shape[0] * shape[1], 1 << (count - 1).bit_length() if count else 0, score.CHUNK)
    asked_3M = np.zeros((3, -(-size // score.CHUNK) * score.CHUNK), np.int32)
    if entries:
        asked_3M[:, :count] = np.concatenate(entries, axis=1)
    return pieces, dict(zip(("row", "place", "target"), asked_3M, strict=True)), count


class _PartialScore:
    """A score request while its tokens are computed, perhaps in several steps, from the first to the last."""

    def __init__(self, request: ScoreRequest):
        self._request, self._left = request, len(request.continuation)
        self._sums: list[float] = []
        self._greedy = True
        self._each: list[TokenScore] = []

    def add(
        self, logprob_M: np.ndarray, greedy_M: np.ndarray, likely_MA: np.ndarray, likely_logprob_MA: np.ndarray
    ) -> Score | None:
        """Takes the next tokens' scores; returns the request's with the last one's."""
        self._sums.append(logprob_M.sum(dtype=np.float64))
        self._greedy &= bool(greedy_M.all())
        if (count := self._request.alternatives) is not None:
            for logprob, ids, logprobs in zip(logprob_M, likely_MA, likely_logprob_MA, strict=True):
                likely = dict(zip(ids[:count].tolist(), logprobs[:count].tolist(), strict=True))
                self._each.append(TokenScore(float(logprob), likely))
        self._left -= len(logprob_M)
        if self._left:
            return None
        return Score(math.fsum(self._sums), self._greedy, len(self._request.continuation), tuple(self._each))


class _Results:
    """Results in the order of their requests, handed on as they come."""

    def __init__(self, count: int, on_result: Callable | None):
        self.values: list = [None] * count
        self._on_result = on_result

    def put(self, index: int, result: Score | Generation) -> None:
        self.values[index] = result
        if self._on_result is not None:
            self._on_result(index, result)
