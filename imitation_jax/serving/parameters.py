"""Reads a request's JSON: the parameters of OpenAI's API with their bounds, and what the engine computes for them.

What would change an answer and cannot be done here is refused, not passed over.
"""

import dataclasses
import random
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError, PydanticKnownError

from imitation_jax.data.dialogues import ROLES
from imitation_jax.inference.requests import GenerateRequest, ScoreRequest
from imitation_jax.inference.score import ALTERNATIVES
from imitation_jax.serving.model import ServedModel
from imitation_jax.serving.scheduler import Job

MOST_CHOICES = 128
MOST_STOPS = 16
COMPLETION_TOKENS = 16  # OpenAI's default for /v1/completions
MESSAGES = {  # in place of pydantic's
    "missing": "is missing",
    "extra_forbidden": "is no parameter here",
    "string_unicode": "holds half a surrogate pair, which is no character",
}
NAME_CHARACTERS = 60  # of a parameter's name that an error repeats


class RefusedError(Exception):
    """An answer that is an error.

    Attributes:
      status: HTTP's.
      param: the parameter that it is about.
      code: OpenAI's word for it.
      headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.param, self.code, self.headers = status, param, code, headers


# ----------------------------------------------------------------------------------------------------------------------
# The parameters
# ----------------------------------------------------------------------------------------------------------------------


def _empty(value: list | dict) -> list | dict:
    if value:
        raise PydanticCustomError("unsupported", "is not supported here")
    return value


def _joined(content: Any) -> Any:
    """A text that is given in parts, which is OpenAI's other way to write one."""
    if not isinstance(content, list):
        return content
    parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
    whole = len(parts) == len(content) and all(isinstance(part, str) for part in parts)
    return "".join(parts) if whole else content


Text = Annotated[str, Field(min_length=0)]  # pydantic looks for half a surrogate pair where there is a constraint alone
Unsupported = AfterValidator(_empty)
STRICT = ConfigDict(strict=True, allow_inf_nan=False)


class Message(BaseModel):
    """One message of a chat; further keys, such as a name, have no bearing on the answer."""

    model_config = STRICT
    role: Literal[ROLES]
    content: Annotated[Text, BeforeValidator(_joined)]


class StreamOptions(BaseModel):
    """What a stream holds beside the text."""

    model_config = STRICT
    include_usage: bool = False


class ResponseFormat(BaseModel):
    """How an answer is laid out."""

    model_config = STRICT
    type: Literal["text"] = "text"


class TextRequest(BaseModel):
    """The parameters that both kinds of requests have."""

    model_config = STRICT | ConfigDict(extra="forbid")
    model: str
    n: int = Field(1, ge=1, le=MOST_CHOICES)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, ge=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), le=2**63)
    stop: list[Annotated[str, Field(min_length=1)]] = Field([], max_length=MOST_STOPS)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    # OpenAI takes note of these; they have no bearing on the answer.
    user: Any = None
    store: Any = None
    metadata: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    # Of these only the value that changes nothing is taken.
    frequency_penalty: Literal[0] = 0
    presence_penalty: Literal[0] = 0
    logit_bias: Annotated[dict, Unsupported] = {}
    best_of: Literal[1] = 1
    suffix: Literal[""] = ""
    response_format: ResponseFormat = ResponseFormat()
    tools: Annotated[list, Unsupported] = []
    tool_choice: Literal["none", "auto"] = "none"
    parallel_tool_calls: bool = True
    modalities: list[Literal["text"]] = ["text"]

    @field_validator("stop", mode="before")
    @classmethod
    def _stops(cls, stop: Any) -> Any:
        return [stop] if isinstance(stop, str) else stop


class ChatRequest(TextRequest):
    """The parameters of /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=ALTERNATIVES)


class CompletionRequest(TextRequest):
    """The parameters of /v1/completions; `prompt` becomes a list of texts and lists of token ids."""

    prompt: Any = [""]
    max_tokens: int = Field(COMPLETION_TOKENS, ge=0)
    echo: bool = False
    logprobs: int | None = Field(None, ge=0, le=ALTERNATIVES)

    @field_validator("prompt", mode="plain")
    @classmethod
    def _prompts(cls, prompt: Any) -> list[str | list[int]]:
        prompts = prompt if isinstance(prompt, list) and not (prompt and type(prompt[0]) is int) else [prompt]
        for one in prompts:
            if isinstance(one, str) and one != one.encode(errors="ignore").decode():
                raise PydanticKnownError("string_unicode")
            if not (isinstance(one, str) or isinstance(one, list) and all(type(token) is int for token in one)):
                raise PydanticCustomError("prompt", "is neither a text, nor token ids, nor a list of these")
        return prompts


def parse(kind: type[TextRequest], body: Mapping[str, Any]) -> TextRequest:
    """The parameters in a request's JSON; null is as good as none.

    Raises:
      RefusedError: one line that names the first one that is wrong.
    """
    try:
        return kind.model_validate({name: value for name, value in body.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    name = " ".join(str(first["loc"][0])[:NAME_CHARACTERS].split())
    name += "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"][1:])
    message = MESSAGES.get(first["type"], first["msg"])
    if first["type"] == "literal_error":
        message = f"must be {first['ctx']['expected']}"
    raise RefusedError(400, f"{name}: {message.replace('Input should', 'must')}", name)


# ----------------------------------------------------------------------------------------------------------------------
# What the engine computes
# ----------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ParsedRequest:
    """What the engine computes for one request; a text's index is its prompt's times `n`, plus its own.

    Attributes:
      parameters: as the client sent them.
      model: the one that they name.
      prompts: token ids of each.
      texts: the prompts themselves, where the answer repeats them.
      max_tokens: of each text.
      logprobs: whether tokens come with their log-probabilities.
      alternatives: with so many of the likeliest tokens in the place of each.
      jobs: for the scheduler: the texts, then, where `echo` and `logprobs` ask for them, the prompts' scores.
    """

    parameters: TextRequest
    model: ServedModel
    prompts: list[list[int]]
    texts: list[str]
    max_tokens: int
    logprobs: bool
    alternatives: int
    jobs: list[Job] = dataclasses.field(default_factory=list)

    @property
    def chat(self) -> bool:
        """Whether messages are answered, not texts continued."""
        return isinstance(self.parameters, ChatRequest)

    @property
    def count(self) -> int:
        """How many texts are written."""
        return len(self.prompts) * self.parameters.n


def prepare(request: TextRequest, model: ServedModel, most: int) -> ParsedRequest:
    """What the engine is to compute.

    Args:
      model: the one that the request names.
      most: texts that a request may ask for.

    Raises:
      RefusedError: one line that names the parameter.
    """
    parsed = _chat(request, model) if isinstance(request, ChatRequest) else _completion(request, model, most)
    source, longest = "messages" if parsed.chat else "prompt", max(max(map(len, parsed.prompts)), 1)
    if longest + max(parsed.max_tokens, int(parsed.chat)) > model.slots:
        answer = f" and {parsed.max_tokens} of an answer" if parsed.max_tokens > 0 else ""
        raise RefusedError(
            400,
            f"{longest} tokens of a prompt{answer} do not fit the limit of {model.slots} tokens for both",
            source,
            "context_length_exceeded",
        )
    if parsed.count > most:
        texts = f"{len(parsed.prompts)} prompts with {request.n} texts each"
        raise RefusedError(400, f"n: {texts}, at most {most} in all", "n")
    if request.stream and parsed.texts and parsed.logprobs:
        raise RefusedError(400, "stream: not with both echo and logprobs", "stream")
    settings = {"temperature": request.temperature, "top_p": max(request.top_p, 1e-6), "stop": tuple(request.stop)}
    for prompt in parsed.prompts if parsed.max_tokens else ():
        for choice in range(request.n):
            seed = random.getrandbits(31) if request.seed is None else (request.seed + choice) % 2**31
            generate = GenerateRequest(prompt, parsed.max_tokens, seed=seed, **settings)
            parsed.jobs.append(Job(generate, request.stream, parsed.alternatives))
    if parsed.texts and parsed.logprobs:
        scores = (ScoreRequest(prompt[:1], prompt[1:], parsed.alternatives) for prompt in parsed.prompts)
        parsed.jobs.extend(map(Job, scores))
    return parsed


def _chat(request: ChatRequest, model: ServedModel) -> ParsedRequest:
    if model.template is None:
        hint = "use /v1/completions, or start the server with --template=plain or a .jinja file"
        raise RefusedError(400, f"{model.name} has no chat template; {hint}", "model")
    try:
        prompt = model.template.prompt_ids([message.model_dump() for message in request.messages])
    except ValueError as error:
        raise RefusedError(400, f"messages: {error}", "messages") from None
    if request.top_logprobs and not request.logprobs:
        raise RefusedError(400, "top_logprobs: needs logprobs: true", "top_logprobs")
    rest = model.slots - max(len(prompt), 1)
    max_tokens = request.max_completion_tokens or request.max_tokens or rest
    return ParsedRequest(request, model, [prompt], [], max_tokens, request.logprobs, request.top_logprobs)


def _completion(request: CompletionRequest, model: ServedModel, most: int) -> ParsedRequest:
    if not 0 < len(request.prompt) <= most:
        raise RefusedError(400, f"prompt: a list of {len(request.prompt)}, not of 1 to {most}", "prompt")
    prompts = [_ids(prompt, model) for prompt in request.prompt]
    texts = []
    if request.echo:
        pairs = zip(request.prompt, prompts, strict=True)
        texts = [given if isinstance(given, str) else model.tokenizer.decode(ids) for given, ids in pairs]
    logprobs = request.logprobs is not None
    return ParsedRequest(request, model, prompts, texts, request.max_tokens, logprobs, request.logprobs or 0)


def _ids(prompt: str | list[int], model: ServedModel) -> list[int]:
    ids = model.tokenizer.encode(prompt, add_special_tokens=True) if isinstance(prompt, str) else prompt
    unknown = next((token for token in ids if not 0 <= token < model.engine.config.vocab_size), None)
    if unknown is not None:
        raise RefusedError(400, f"prompt: token id {unknown} is not in the model's vocabulary", "prompt")
    first = model.tokenizer.eos_id if model.tokenizer.bos_id is None else model.tokenizer.bos_id
    if not ids and first is None:
        raise RefusedError(400, "prompt: is empty", "prompt")
    return ids or [first]
