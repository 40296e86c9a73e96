"""The face of inference: token requests in, results out.

Sorts requests by length into batches of few static shapes, so that padding is small, memory is bounded and every
program is compiled once; the loops themselves are in score.py and generate.py. Legend as there.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding

from imitation_jax.inference import generate, score
from imitation_jax.models.load import LoadedModel
from imitation_jax.parallel.mesh import AXES, make_mesh
from imitation_jax.parallel.sharding import path_of, shardings


@dataclasses.dataclass(frozen=True)
class ScoreRequest:
    """How likely is `continuation` after `context`? Both are token ids."""

    context: Sequence[int]
    continuation: Sequence[int]


@dataclasses.dataclass(frozen=True)
class Score:
    """Natural-log likelihood of a continuation, whether greedy decoding would write it, and how many tokens it has."""

    logprob: float
    greedy: bool
    tokens: int


@dataclasses.dataclass(frozen=True)
class GenerateRequest:
    """What to continue, and how.

    Attributes:
      prompt: token ids.
      max_new_tokens: at most so many; a generation also ends where the model's context does.
      stop: strings that end the text before they begin.
      stop_ids: tokens that end it; None for those of the model's chat template.
      temperature, top_p: see `sampling.choose`.
      seed: of this request's draws.
    """

    prompt: Sequence[int]
    max_new_tokens: int
    stop: Sequence[str] = ()
    stop_ids: frozenset[int] | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Generation:
    """What was written.

    Attributes:
      text: decoded without special tokens, cut before the first stop string.
      ids: its tokens without a stop id; where a stop string ended it, up to the token that completed that string.
      finish_reason: "stop" after a stop id or string, else "length".
      logprob: summed natural-log probabilities of `ids` as the model gives them, whatever the temperature.
    """

    text: str
    ids: list[int]
    finish_reason: str
    logprob: float


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
        max_tokens_per_batch: int | None = None,
        compute_dtype: str = "float32",
    ):
        """Places the weights.

        Args:
          model: what `load_model` returns.
          mesh: default: the mesh that the weights are on, else one of all devices.
          batch_size: rows of a batch.
          max_tokens_per_batch: positions of a batch, padding and generated tokens included, which bounds the memory of
            activations and cache: longer sequences run in fewer rows, at least one a device of the batch axes. Default
            512 a row.
          compute_dtype: "float32" or "bfloat16"; weights of matrix products are kept in it. Norms, softmax and
            log-likelihoods are float32 always.

        Raises:
          ValueError: a setting out of range, or a mesh that does not divide the weights.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: must be 1 or more")
        if max_tokens_per_batch is not None and max_tokens_per_batch < 1:
            raise ValueError(f"max_tokens_per_batch={max_tokens_per_batch}: must be 1 or more")
        if compute_dtype not in ("float32", "bfloat16"):
            raise ValueError(f"compute_dtype={compute_dtype!r}: expected float32 or bfloat16")
        self.config, self.tokenizer, self.template = model.config, model.tokenizer, model.template
        # Only EOS ends the text of a model without a chat template.
        eos = frozenset() if model.tokenizer.eos_id is None else frozenset({model.tokenizer.eos_id})
        self._stop_ids = model.template.stop_ids if model.template else eos
        self.mesh = _without_sequence_axis(mesh or _mesh_of(model.params))
        self._family = model.family
        self._dtype = jnp.dtype(compute_dtype)
        self._ways = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        self._batch_size = batch_size
        self._max_tokens = max_tokens_per_batch or 512 * batch_size
        self._params = self._place(model)

    def score(
        self, requests: Sequence[ScoreRequest], on_result: Callable[[int, Score], None] | None = None
    ) -> list[Score]:
        """Log-likelihoods of continuations, in the order of the requests.

        Requests that feed the model the same tokens, such as one-token choices after one context, share a row.

        Args:
          requests: an empty continuation scores 0.0 and is greedy; an empty context stands for the tokenizer's BOS, or
            its EOS where it has no BOS.
          on_result: called with a request's index and score as soon as it is known.

        Raises:
          ValueError: naming the request: it does not fit the model's context, holds an id that the vocabulary lacks,
            or has an empty context and the tokenizer neither BOS nor EOS.
        """
        results = _Results(len(requests), on_result)
        members: dict[bytes, list[int]] = {}
        contexts: list[int] = []
        for index, request in enumerate(requests):
            context = self._context(request.context, index) if request.continuation else []
            length = len(context) + len(request.continuation) - 1
            if length > self.config.max_position_embeddings:
                raise ValueError(
                    f"request {index}: a context of {len(context)} tokens and a continuation of "
                    f"{len(request.continuation)} do not fit the model's {self.config.max_position_embeddings} "
                    "positions; shorten the context"
                )
            contexts.append(len(context))
            self._check_ids([*context, *request.continuation], index)
            if request.continuation:
                fed = np.array([*context, *request.continuation[:-1]], np.int32).tobytes()
                members.setdefault(fed, []).append(index)
        for index, request in enumerate(requests):
            if not request.continuation:
                results.put(index, Score(0.0, True, 0))

        # A row asks for no more tokens than it has positions, so a batch's asked tokens have one static shape too.
        rows: list[tuple[np.ndarray, list[int]]] = []
        for key, indices in members.items():
            fed = np.frombuffer(key, np.int32)
            asked = [len(requests[index].continuation) for index in indices]
            ends = np.cumsum(asked)
            while indices:
                fit = max(1, int(np.searchsorted(ends, len(fed), side="right")))
                rows.append((fed, indices[:fit]))
                indices, ends = indices[fit:], ends[fit:] - ends[fit - 1]
        for batch, size, length in self._batches([len(fed) for fed, _ in rows], alike=True):
            tokens_BS = np.zeros((size, length), np.int32)
            asked_M = {
                name: np.zeros(-(-size * length // score.CHUNK) * score.CHUNK, np.int32)
                for name in ("row", "place", "target")
            }
            spans, count = [], 0
            for row, number in enumerate(batch):
                fed, indices = rows[number]
                tokens_BS[row, : len(fed)] = fed
                for index in indices:
                    targets = requests[index].continuation
                    span = slice(count, count + len(targets))
                    asked_M["row"][span] = row
                    asked_M["place"][span] = np.arange(len(targets)) + contexts[index] - 1
                    asked_M["target"][span] = targets
                    spans.append((index, span))
                    count = span.stop
            with jax.set_mesh(self.mesh):
                scored = score.score_batch(
                    self._family, self.config, self._params, tokens_BS, asked_M, count, dtype=self._dtype
                )
            logprob_M, greedy_M = (np.asarray(array) for array in scored)
            for index, span in spans:
                logprob = float(logprob_M[span].sum(dtype=np.float64))
                results.put(index, Score(logprob, bool(greedy_M[span].all()), span.stop - span.start))
        return results.values

    def generate(
        self, requests: Sequence[GenerateRequest], on_result: Callable[[int, Generation], None] | None = None
    ) -> list[Generation]:
        """Continuations of prompts, in the order of the requests.

        Args:
          requests: an empty prompt stands for the tokenizer's BOS, or its EOS where it has no BOS.
          on_result: called with a request's index and generation as soon as it is known.

        Raises:
          ValueError: naming the request: the prompt is longer than the model's context, holds an id that the vocabulary
            lacks, or is empty and the tokenizer has neither BOS nor EOS; or a setting is out of range.
        """
        results = _Results(len(requests), on_result)
        writers = []
        for index, request in enumerate(requests):
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
            stop_ids = self._stop_ids if request.stop_ids is None else request.stop_ids
            writer = _Writer(index, request, prompt, min(request.max_new_tokens, room), stop_ids, self.tokenizer)
            if writer.limit:
                writers.append(writer)
            else:
                results.put(index, Generation("", [], "length", 0.0))
        # A step takes about as long for a few rows as for many, so that rows of all lengths are better than fewer rows.
        lengths = [len(writer.prompt) + writer.limit for writer in writers]
        for batch, size, slots in self._batches(lengths, alike=False):
            self._generate_batch([writers[number] for number in batch], size, slots, results)
        return results.values

    def _generate_batch(self, batch: list["_Writer"], size: int, slots: int, results: "_Results") -> None:
        """The last token of a prompt is left to the first step of `decode`, so that tokens are chosen in one place."""
        most_stop_ids = max(1, *(len(writer.stop_ids) for writer in batch))
        rows = {name: np.zeros(size, np.int32) for name in ("token", "position", "last", "seed")}
        rows |= {
            "done": np.ones(size, bool),
            "temperature": np.zeros(size, np.float32),
            "top_p": np.ones(size, np.float32),
            "stop_ids": np.full((size, -(-most_stop_ids // 8) * 8), generate.NOTHING, np.int32),
        }
        for row, writer in enumerate(batch):
            rows["token"][row], rows["position"][row] = writer.prompt[-1], len(writer.prompt) - 1
            rows["last"][row] = len(writer.prompt) + writer.limit - 2
            rows["done"][row] = False
            rows["temperature"][row], rows["top_p"][row] = writer.request.temperature, writer.request.top_p
            rows["seed"][row] = writer.request.seed & 0x7FFFFFFF
            rows["stop_ids"][row, : len(writer.stop_ids)] = sorted(writer.stop_ids)
        model = (self._family, self.config, self._params)
        with jax.set_mesh(self.mesh):
            cache = generate.empty_cache(*model[:2], rows=size, slots=slots, dtype=self._dtype)
            for part, count, length in self._batches([len(writer.prompt) - 1 for writer in batch], alike=True):
                tokens_BS, rows_B = np.zeros((count, length), np.int32), np.full(count, size, np.int32)
                for i, row in enumerate(part):
                    tokens_BS[i, : len(batch[row].prompt) - 1] = batch[row].prompt[:-1]
                    rows_B[i] = row
                cache = generate.prefill(*model, cache, tokens_BS, rows_B, dtype=self._dtype)
            while not rows["done"].all():
                cache, *written = generate.decode(*model, cache, rows, dtype=self._dtype)
                tokens_BC, logprobs_BC = (np.asarray(array) for array in written)
                for row, writer in enumerate(batch):
                    if rows["done"][row]:
                        continue
                    generation = writer.write(tokens_BC[row], logprobs_BC[row])
                    if generation is not None:
                        rows["done"][row] = True
                        results.put(writer.index, generation)
                rows["token"] = tokens_BC[:, -1]
                rows["position"] = rows["position"] + generate.CHUNK

    def _batches(self, lengths: Sequence[int], *, alike: bool) -> Iterator[tuple[list[int], int, int]]:
        """(indices, rows, positions) of batches, longest sequences first: rows and positions are the static shape.

        A full batch has as many rows as the settings allow, another one a power of two of them. `alike` keeps work on
        padding small: the power of two is one that sequences of half the length or more fill to three quarters.
        """
        order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
        start = 0
        while start < len(order):
            length = bucket(lengths[order[start]])
            most = max(1, min(self._batch_size, self._max_tokens // length) // self._ways)
            here = order[start : start + most * self._ways]
            if alike:
                here = here[: sum(2 * bucket(lengths[index]) >= length for index in here)]
            needed = -(-len(here) // self._ways)
            rows = 1 << (needed - 1).bit_length()
            if alike and 4 * needed < 3 * rows:
                rows //= 2
            rows = min(most, rows) * self._ways
            yield order[start : start + rows], rows, length
            start += rows

    def _context(self, ids: Sequence[int], index: int) -> list[int]:
        if ids:
            return list(ids)
        first = self.tokenizer.eos_id if self.tokenizer.bos_id is None else self.tokenizer.bos_id
        if first is None:
            raise ValueError(f"request {index}: nothing to continue, and the tokenizer has no BOS or EOS to begin with")
        return [first]

    def _check_ids(self, ids: Sequence[int], index: int) -> None:
        size = self.config.vocab_size
        if ids and not 0 <= min(ids) <= max(ids) < size:
            wrong = next(i for i in ids if not 0 <= i < size)
            raise ValueError(f"request {index}: token id {wrong} is not in the model's vocabulary of {size}")

    def _place(self, model: LoadedModel) -> object:
        """The weights on the mesh, those of matrix products in the compute dtype so that no step casts them again."""

        def cast(path, leaf):
            return leaf if path_of(path).endswith("norm") else leaf.astype(self._dtype)

        placed = jax.device_put(model.params, shardings(model.params, model.family.SHARDING, self.mesh))
        return jax.tree_util.tree_map_with_path(cast, placed)


class _Results:
    """Results in the order of their requests, handed on as they come."""

    def __init__(self, count: int, on_result: Callable | None):
        self.values: list = [None] * count
        self._on_result = on_result

    def put(self, index: int, result: Score | Generation) -> None:
        self.values[index] = result
        if self._on_result is not None:
            self._on_result(index, result)


class _Writer:
    """One request while it is being answered: collects tokens and watches for its end."""

    def __init__(self, index, request, prompt, limit, stop_ids, tokenizer):
        self.index, self.request, self.prompt, self.limit, self.stop_ids = index, request, prompt, limit, stop_ids
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._logprobs: list[float] = []

    def write(self, tokens_C: np.ndarray, logprobs_C: np.ndarray) -> Generation | None:
        """Takes a chunk; returns the generation where it ends."""
        old = len(self._ids)
        self._ids += [token for token in tokens_C.tolist() if token != generate.NOTHING]
        self._logprobs += logprobs_C[: len(self._ids) - old].tolist()
        stopped = self._ids[-1] in self.stop_ids
        if stopped:
            del self._ids[-1], self._logprobs[-1]
        text = self._text(len(self._ids))
        if self._cut(text) is not None:
            length = next(n for n in range(old + 1, len(self._ids) + 1) if self._cut(self._text(n)) is not None)
            text = self._text(length)
            return self._generation(text[: self._cut(text)], length, "stop")
        if stopped or len(self._ids) == self.limit:
            return self._generation(text, len(self._ids), "stop" if stopped else "length")
        return None

    def _text(self, length: int) -> str:
        return self._tokenizer.decode(self._ids[:length], skip_special_tokens=True)

    def _cut(self, text: str) -> int | None:
        """Where the first stop string begins."""
        return min((at for at in map(text.find, self.request.stop) if at >= 0), default=None)

    def _generation(self, text: str, length: int, reason: str) -> Generation:
        return Generation(text, self._ids[:length], reason, math.fsum(self._logprobs[:length]))


def bucket(length: int) -> int:
    """The static length that holds `length` tokens: four to an octave, from 16 on, so a tenth is padding on average."""
    step = max(16, 1 << max(0, (length - 1).bit_length() - 3))
    return max(1, -(-length // step)) * step


def _mesh_of(params: object) -> Mesh:
    sharding = jax.tree.leaves(params)[0].sharding
    return sharding.mesh if isinstance(sharding, NamedSharding) else make_mesh()


def _without_sequence_axis(mesh: Mesh) -> Mesh:
    """The same devices with the sequence axis joined to data: one position at a time cannot be split."""
    devices = mesh.devices.transpose(0, 2, 1, 3)
    shape = (mesh.shape["data"] * mesh.shape["sequence"], mesh.shape["fsdp"], 1, mesh.shape["tensor"])
    return Mesh(devices.reshape(shape), AXES, axis_types=(AxisType.Auto,) * len(AXES))
