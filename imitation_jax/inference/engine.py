"""The face of inference: token requests in, results out.

prefixes.py says what is computed together, score.py and generate.py compute it; here requests become sequences, steps
become batches of few static shapes within the memory that there is, and places in them become results. Legend as there.
"""

import dataclasses
import functools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding

from imitation_jax.inference import generate, score
from imitation_jax.inference.memory import Memory, power
from imitation_jax.inference.prefixes import Part, Step, order, plan
from imitation_jax.inference.writer import GenerateRequest, Generation, Writer
from imitation_jax.models.attention import KEY_BLOCK
from imitation_jax.models.load import LoadedModel
from imitation_jax.parallel.mesh import AXES, make_mesh
from imitation_jax.parallel.sharding import path_of, shardings

# Tokens that a step computes on each device of the batch axes, for every row of the batch size.
TOKENS_PER_ROW = 64


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


class Engine:
    """Scores and generates with one model.

    Attributes:
      config, tokenizer, template: the model's.
      mesh: where it runs.
      tokens_forwarded: positions computed so far, padding included.
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
        self.mesh = _without_sequence_axis(mesh or _mesh_of(model.params))
        self.tokens_forwarded = 0
        self._family = model.family
        self._dtype = jnp.dtype(compute_dtype)
        self._ways = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        self._batch_size = batch_size
        self._params = self._place(model)
        self._memory_gib = memory_gib

    def score(
        self, requests: Sequence[ScoreRequest], on_result: Callable[[int, Score], None] | None = None
    ) -> list[Score]:
        """Log-likelihoods of continuations, in the order of the requests.

        What several requests begin with is computed once, so hand over all there are in one call.

        Args:
          requests: an empty continuation scores 0.0 and is greedy; an empty context stands for the tokenizer's BOS, or
            its EOS where it has no BOS.
          on_result: called with a request's index and score as soon as it is known.

        Raises:
          ValueError: naming the request: it does not fit the model's context, holds an id that the vocabulary lacks,
            or has an empty context and the tokenizer neither BOS nor EOS; or one sequence does not fit the memory.
        """
        results = _Results(len(requests), on_result)
        asked: dict[bytes, list[tuple[int, int]]] = defaultdict(list)  # what is read -> (request, first place asked)
        for index, request in enumerate(requests):
            if not len(request.continuation):
                results.put(index, Score(0.0, True, 0))
                continue
            context = self._context(request.context, index)
            length = len(context) + len(request.continuation) - 1
            if length > self.config.max_position_embeddings:
                raise ValueError(
                    f"request {index}: a context of {len(context)} tokens and a continuation of "
                    f"{len(request.continuation)} do not fit the model's {self.config.max_position_embeddings} "
                    "positions; shorten the context"
                )
            self._check_ids(request.continuation, index)
            self._check_ids(context, index)
            read = np.empty(length, np.int32)
            read[: len(context)] = context
            read[len(context) :] = request.continuation[:-1]
            asked[read.tobytes()].append((index, len(context) - 1))
        sequences, members = _in_order(asked)
        wanted = [min(start for _, start in those) for those in members]
        left = {index: len(requests[index].continuation) for those in members for index, _ in those}
        sums, all_greedy = defaultdict(list), defaultdict(lambda: True)

        steps, cache = self._prepare(sequences, wanted)
        for step in steps:
            rows, shape = self._rows(step)
            pieces, entries = [], []
            for row, part in ((row, part) for row, filled in enumerate(step.rows) for part in filled.parts):
                stop = part.start + len(part.places)
                for index, start in members[part.sequence]:
                    begin = max(start, part.start)
                    if begin < stop:
                        targets = requests[index].continuation[begin - start : stop - start]
                        places = part.places[begin - part.start :]
                        pieces.append((index, len(targets)))
                        entries.append(np.stack([np.full_like(places, row), places, np.asarray(targets, np.int32)]))
            count = sum(size for _, size in pieces)
            size = max(shape[0] * shape[1], 1 << (count - 1).bit_length() if count else 0, score.CHUNK)
            asked_3M = np.zeros((3, -(-size // score.CHUNK) * score.CHUNK), np.int32)
            if entries:
                asked_3M[:, :count] = np.concatenate(entries, axis=1)
            with jax.set_mesh(self.mesh):
                cache, *scored = score.score_step(
                    self._family,
                    self.config,
                    self._params,
                    cache,
                    rows,
                    np.int32(step.at),
                    dict(zip(("row", "place", "target"), asked_3M, strict=True)),
                    np.int32(count),
                    dtype=self._dtype,
                )
            if not pieces:
                continue  # nobody waits for it
            logprob_M, greedy_M = (np.asarray(array) for array in scored)
            end = 0
            for index, size in pieces:
                start, end = end, end + size
                sums[index].append(logprob_M[start:end].sum(dtype=np.float64))
                all_greedy[index] &= bool(greedy_M[start:end].all())
                left[index] -= size
                if not left[index]:
                    logprob = math.fsum(sums.pop(index))
                    results.put(index, Score(logprob, all_greedy.pop(index), len(requests[index].continuation)))
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
        classes: dict[int, list[Writer]] = defaultdict(list)
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
            if "" in request.stop:  # as it is in every text, given in the place of a tuple
                raise ValueError(f"request {index}: stop must be a tuple of strings, none of them empty")
            named = map(self.tokenizer.token_to_id, request.stop)  # special tokens are no part of the decoded text
            stop_ids = frozenset(i for i in named if i in self.tokenizer.special_ids)
            stop_ids |= self._stop_ids if request.stop_ids is None else request.stop_ids
            writer = Writer(index, request, prompt, min(request.max_new_tokens, room), stop_ids, self.tokenizer)
            if writer.limit:
                classes[power(len(prompt) + writer.limit, 128)].append(writer)
            else:
                results.put(index, Generation("", [], "length", 0.0))
        # A long text needs a long cache, which all rows of a batch would have to have.
        for slots in sorted(classes, reverse=True):
            self._generate(classes[slots], slots, results)
        return results.values

    def _generate(self, writers: list["Writer"], slots: int, results: "_Results") -> None:
        """Continuous batching: as many rows as fit, and a finished row goes to the next prompt.

        The last token of a prompt is left to `decode`, so that tokens are chosen in one place.
        """
        by_prompt: dict[bytes, list[Writer]] = defaultdict(list)
        for writer in writers:
            by_prompt[np.array(writer.prompt[:-1], np.int32).tobytes()].append(writer)
        waiting = [(writer, None, None) for writer in by_prompt.pop(b"", [])]  # (writer, keys and values, where)
        sequences, members = _in_order(by_prompt)
        size = self._fitting_rows(min(self._batch_size, len(writers)), slots)
        held = size * slots // self._ways * self._memory.slot
        steps, past = self._prepare(sequences, [len(sequence) - 1 for sequence in sequences], held)

        rows = {name: np.zeros(size, np.int32) for name in ("token", "position", "last", "seed")}
        rows |= {
            "done": np.ones(size, bool),
            "temperature": np.zeros(size, np.float32),
            "top_p": np.ones(size, np.float32),
        }
        active: list[Writer | None] = [None] * size
        pauses_of = functools.lru_cache(16)(self._pauses)
        pauses_BV = np.zeros((size, self.config.vocab_size), bool)
        model = (self._family, self.config, self._params)
        with jax.set_mesh(self.mesh):
            cache = generate.empty_cache(*model[:2], rows=size, slots=slots, dtype=self._dtype)
            more = True
            while True:
                for row in (row for row in range(size) if active[row] is None):
                    while more and not waiting:
                        step = next(steps, None)
                        more = step is not None
                        if more:
                            batch, _ = self._rows(step)
                            past, new = generate.prefill(*model, past, batch, np.int32(step.at), dtype=self._dtype)
                            waiting = [
                                (writer, new, (at, part))
                                for at, filled in enumerate(step.rows)
                                for part in filled.parts
                                for writer in members[part.sequence]
                            ]
                    if not waiting:
                        break
                    writer, new, where = waiting.pop()
                    if where is not None:
                        cache = generate.fill(self._family, cache, np.int32(row), past, *_source(new, *where, slots))
                    active[row] = writer
                    rows["done"][row] = False
                    rows["token"][row], rows["position"][row] = writer.prompt[-1], len(writer.prompt) - 1
                    rows["last"][row] = len(writer.prompt) + writer.limit - 2
                    rows["temperature"][row], rows["top_p"][row] = writer.request.temperature, writer.request.top_p
                    rows["seed"][row] = writer.request.seed & 0x7FFFFFFF
                    pauses_BV[row] = pauses_of(writer.stop_ids, tuple(writer.request.stop))
                if rows["done"].all():
                    break
                # To look at every finished row at once would cost more than its empty place does.
                enough = int(rows["done"].sum()) + (max(1, size // 8) if more or waiting else size)
                cache, *written = generate.decode(
                    *model, cache, rows, pauses_BV, np.int32(min(enough, size)), dtype=self._dtype
                )
                tokens_BC, logprobs_BC = (np.asarray(array) for array in written)
                self.tokens_forwarded += size * int((tokens_BC != generate.NOTHING).sum(axis=1).max())
                for row, writer in enumerate(active):
                    if writer is None:
                        continue
                    generation = writer.write(tokens_BC[row], logprobs_BC[row])
                    if generation is not None:
                        # An idle row must not make others read as much of the cache as it did.
                        rows["done"][row], rows["position"][row], rows["temperature"][row] = True, 0, 0
                        active[row] = None
                        results.put(writer.index, generation)
                    else:
                        rows["token"][row] = writer.ids[-1]
                        rows["position"][row] = len(writer.prompt) + len(writer.ids) - 1

    # ------------------------------------------------------------------------------------------------------------------
    # Steps as batches, within the memory that there is
    # ------------------------------------------------------------------------------------------------------------------

    def _prepare(
        self, sequences: list[np.ndarray], wanted: list[int], held: int = 0
    ) -> tuple[Iterator[Step], dict[str, jax.Array]]:
        """The steps, in rows as long as the memory allows beside `held` bytes, and the cache that they share."""
        capacity = power(TOKENS_PER_ROW * self._batch_size, 64)
        while True:
            steps = list(plan(sequences, wanted, capacity, self._ways))
            # What a step keeps lies behind the path; a few lengths serve all request sets.
            slots = power(max((step.at for step in steps), default=0) + capacity, KEY_BLOCK)
            needed = held + self._memory.needed(capacity, slots)
            if needed <= self._memory.budget:
                break
            if capacity <= 64:
                self._memory.refuse(needed)
            capacity //= 2
        with jax.set_mesh(self.mesh):
            return iter(steps), generate.empty_cache(self._family, self.config, rows=1, slots=slots, dtype=self._dtype)

    def _rows(self, step: Step) -> tuple[dict[str, np.ndarray], tuple[int, int]]:
        """A step's rows as `hidden_branches` takes them, and their shape: a row for each device of the batch axes."""
        shape = (self._ways, power(max(len(row.tokens) for row in step.rows), 64))
        rows = {name: np.zeros(shape, np.int32) for name in ("tokens", "positions", "ends", "seen")}
        rows["ends"][:] = np.arange(1, shape[1] + 1)  # padding sees itself
        for at, row in enumerate(step.rows):
            for name, filled in rows.items():
                filled[at, : len(row.tokens)] = getattr(row, name)
        self.tokens_forwarded += shape[0] * shape[1]
        return rows, shape

    def _pauses(self, stop_ids: frozenset[int], stops: tuple[str, ...]) -> np.ndarray:
        """(V,) bool: stop ids, and all tokens whose own text holds a stop string."""
        pauses_V = np.zeros(self.config.vocab_size, bool)
        pauses_V[np.array([i for i in stop_ids if 0 <= i < len(pauses_V)], int)] = True
        if stops:
            pauses_V[: len(self._pieces)] |= [any(stop in piece for stop in stops) for piece in self._pieces]
        return pauses_V

    @functools.cached_property
    def _pieces(self) -> list[str]:
        return [self.tokenizer.decode([i]) for i in range(self.tokenizer.vocab_size)]

    def _fitting_rows(self, count: int, slots: int) -> int:
        """How many rows of `slots` slots are generated at a time: `count`, or so many that half of memory is left, and
        what the smallest step needs."""
        size = -(-power(count, 1) // self._ways) * self._ways
        least = self._memory.needed(64, power(slots + 64, KEY_BLOCK))
        most = min(self._memory.budget / 2, self._memory.budget - least)
        while size > self._ways and size * slots // self._ways * self._memory.slot > most:
            size = max(self._ways, size // 2 // self._ways * self._ways)
        return size

    @functools.cached_property
    def _memory(self) -> Memory:
        """As it is when the first batch is planned."""
        model = (self._family, self.config, self._params)
        return Memory(*model, self._dtype, self.mesh, self._batch_size, self._memory_gib)

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

    def _place(self, model: LoadedModel) -> Any:
        """The weights on the mesh, those of matrix products in the compute dtype so that no step casts them again."""

        def cast(path, leaf):
            return leaf if path_of(path).endswith("norm") else leaf.astype(self._dtype)

        placed = jax.device_put(model.params, shardings(model.params, model.family.SHARDING, self.mesh))
        return jax.tree_util.tree_map_with_path(cast, placed)


def _in_order(by_sequence: dict[bytes, list]) -> tuple[list[np.ndarray], list[list]]:
    """The sequences as `plan` needs them, and what belongs to each."""
    sequences, members = [np.frombuffer(key, np.int32) for key in by_sequence], list(by_sequence.values())
    sorted_ = order(sequences)
    return [sequences[i] for i in sorted_], [members[i] for i in sorted_]


def _source(new: dict[str, jax.Array], row: int, part: Part, slots: int) -> tuple:
    """The last arguments of `fill_cache`: where the slots of a part come from."""
    tokens_T = np.full(slots, part.places[-1], np.int32)
    tokens_T[part.start : part.start + len(part.places)] = part.places
    return np.int32(part.start), new, np.int32(row), tokens_T


class _Results:
    """Results in the order of their requests, handed on as they come."""

    def __init__(self, count: int, on_result: Callable | None):
        self.values: list = [None] * count
        self._on_result = on_result

    def put(self, index: int, result: Score | Generation) -> None:
        self.values[index] = result
        if self._on_result is not None:
            self._on_result(index, result)


def _mesh_of(params: object) -> Mesh:
    sharding = jax.tree.leaves(params)[0].sharding
    return sharding.mesh if isinstance(sharding, NamedSharding) else make_mesh()


def _without_sequence_axis(mesh: Mesh) -> Mesh:
    """The same devices with the sequence axis joined to data: one position at a time cannot be split."""
    devices = mesh.devices.transpose(0, 2, 1, 3)
    shape = (mesh.shape["data"] * mesh.shape["sequence"], mesh.shape["fsdp"], 1, mesh.shape["tensor"])
    return Mesh(devices.reshape(shape), AXES, axis_types=(AxisType.Auto,) * len(AXES))
