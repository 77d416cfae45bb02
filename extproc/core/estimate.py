"""How many tokens a request will take, before anyone has counted: a learned ratio of bytes to tokens.

`budget = ceil(bytes / (ratio - sigmas * deviation)) + output` (dual-pool routing, arXiv 2604.08075, section on the
estimator; deviation is the mean absolute one). How the ratio is learned: `ratios.py`, `teachers.py`, `lessons.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from extproc.core.averages import Average, own_part
from extproc.core.facts import Api, Category, RequestFacts
from extproc.core.policy import Model, Reserve
from extproc.core.teachers import of_category

PRIOR_MESSAGE_TOKENS = 4.0  # what chat templates add to a message: 3 to 5 in ChatML and Llama 3
OUTPUT_OBSERVATIONS = 20
PRIOR_OUTPUT_TOKENS = 1024  # where the client set no maximum and nothing has been observed
PRIOR_STREAM_BYTES_PER_TOKEN = 200.0  # one server-sent event of vLLM's, a token each
LOWEST_RATIO = 0.5  # bytes per token; no tokenizer in use makes two tokens of every byte

NOTHING = Average(0, 0.0)
PRIOR_TEMPLATE = Average(0, PRIOR_MESSAGE_TOKENS)
PRIOR_OUTPUT = Average(0, PRIOR_OUTPUT_TOKENS)
_PROSE = of_category(Category.PROSE, {})


@dataclass(frozen=True, slots=True)
class Beliefs:
    """What has been learned that bears on one request. An average of n = 0 is a prior."""

    of_model: Average = _PROSE
    of_entitlement: Average = NOTHING
    overhead_of_model: Average = PRIOR_TEMPLATE
    overhead_of_entitlement: Average = NOTHING
    output: Average = PRIOR_OUTPUT  # high quantile, of requests with a limit of their own
    open_output: Average = PRIOR_OUTPUT  # the same of those without
    stream_bytes_per_token: float = PRIOR_STREAM_BYTES_PER_TOKEN

    @property
    def ratio(self) -> Average:
        """Bytes per token: the entitlement's own average, and while that is young some of what others taught.

        What is averaged is tokens per byte: these are what an estimate is proportional to.
        """
        own, others = self.of_entitlement, self.of_model
        if own.n == 0:
            return others
        part = own_part(own.n)
        mean = 1 / (part / own.mean + (1 - part) / others.mean)
        return Average(own.n, mean, part * own.deviation + (1 - part) * others.deviation)

    @property
    def message_tokens(self) -> float:
        """What the chat template adds to a message, by the same rule."""
        own, part = self.overhead_of_entitlement, own_part(self.overhead_of_entitlement.n)
        return part * own.mean + (1 - part) * self.overhead_of_model.mean


def unlearned(category: Category) -> Beliefs:
    """What is believed where nothing can be read."""
    return Beliefs(of_model=of_category(category, {}))


@dataclass(frozen=True, slots=True)
class Estimate:
    """All in tokens. Prompt figures are of the whole request; of its longest single sequence what must fit a server."""

    likely_prompt: int  # by the mean ratio: what a settlement compares with
    budget_prompt: int  # by the conservative ratio: what routing and admission use
    output: int  # the most the request may generate, all choices together
    reserved_output: int  # what the lease holds of that
    sequence_budget: int  # conservative prompt of the longest sequence plus its answer: what a pool must hold
    longest_likely: int  # optimistic prompt of that sequence plus what the client asked for: decides what can never fit
    bytes_per_token: float

    @property
    def budget(self) -> int:
        return self.budget_prompt + self.output

    @property
    def reserved(self) -> int:
        return self.budget_prompt + self.reserved_output


def estimate(facts: RequestFacts, model: Model, beliefs: Beliefs) -> Estimate:
    ratio = beliefs.ratio
    spread = model.routing.sigmas * ratio.deviation
    careful = max(ratio.mean - spread, ratio.mean / 4)
    fixed = known_tokens(facts, model) + math.ceil(facts.messages * beliefs.message_tokens)
    each = _output_of_one(facts, model, beliefs)
    asked = each if facts.max_output is not None else 0  # a server fits what nobody asked for into the room there is
    answers = facts.choices * facts.prompts
    return Estimate(
        likely_prompt=fixed + _tokens(facts.text_bytes, ratio.mean),
        budget_prompt=fixed + _tokens(facts.text_bytes, careful),
        output=each * answers,
        reserved_output=_reserved_of_one(each, facts, model, beliefs) * answers,
        sequence_budget=_longest_prompt(facts, fixed, careful) + each,
        longest_likely=_longest_prompt(facts, fixed, ratio.mean + spread) + asked,
        bytes_per_token=ratio.mean,
    )


def _longest_prompt(facts: RequestFacts, fixed: int, bytes_per_token: float) -> int:
    """Several prompts are a sequence each."""
    if facts.prompts == 1:
        return fixed + _tokens(facts.text_bytes, bytes_per_token)
    return facts.longest_exact_tokens + _tokens(facts.longest_text_bytes, bytes_per_token)


def known_tokens(facts: RequestFacts, model: Model) -> int:
    """Prompt tokens that need no estimate: token ids, and media by their fixed figures."""
    return facts.exact_tokens + facts.images * model.media.image + facts.audios * model.media.audio


def _tokens(text_bytes: int, bytes_per_token: float) -> int:
    return math.ceil(text_bytes / max(bytes_per_token, LOWEST_RATIO))


def _output_of_one(facts: RequestFacts, model: Model, beliefs: Beliefs) -> int:
    if facts.api is Api.EMBEDDINGS:
        return 0
    if facts.max_output is not None:
        return facts.max_output
    return min(_learned(beliefs.open_output), model.max_model_len)


def _reserved_of_one(each: int, facts: RequestFacts, model: Model, beliefs: Beliefs) -> int:
    if facts.max_output is None or model.reserve is Reserve.MAX_TOKENS or beliefs.output.n < OUTPUT_OBSERVATIONS:
        return each
    return min(each, _learned(beliefs.output))


def _learned(output: Average) -> int:
    return PRIOR_OUTPUT_TOKENS if output.n < OUTPUT_OBSERVATIONS else math.ceil(output.mean)
