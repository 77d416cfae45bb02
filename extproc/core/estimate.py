"""How many tokens a request will take, before anyone has counted: a learned ratio of bytes to tokens.

`budget = ceil(bytes / (ratio - sigmas * deviation)) + output` (dual-pool routing, arXiv 2604.08075, section on the
estimator; deviation is the mean absolute one). What is learned lives in the ledger and is learned there, in
`lua/settle.lua`; `learn_*` here is the same arithmetic, for simulation and to check the script against.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from extproc.core.facts import Api, RequestFacts
from extproc.core.policy import Model, Reserve

PRIOR_BYTES_PER_TOKEN = 4.0  # the papers' cold start
PRIOR_MESSAGE_TOKENS = 4.0  # what chat templates add to a message: 3 to 5 in ChatML and Llama 3
PRIOR_DEVIATION_SHARE = 0.25  # of the ratio, while nothing has been observed: CJK is at half the prior
BETA = 0.98  # a window of about 50 observations
OWN_OBSERVATIONS = 20  # from then on an entitlement's own ratio replaces the model's
OUTPUT_QUANTILE = 0.95
OUTPUT_OBSERVATIONS = 20
# With a first step of 1 the bound covers 92 % of real answers from the 20th to the 100th; with 3 it covers 95 to 96 %.
OUTPUT_FIRST_STEP, OUTPUT_LAST_STEP = 3.0, 0.05
PRIOR_OUTPUT_TOKENS = 1024  # where the client set no maximum and nothing has been observed
PRIOR_STREAM_BYTES_PER_TOKEN = 200.0  # one server-sent event of vLLM's, a token each
SHORT_TEXT_BYTES = 128  # a message; below, the text says more about the template than about the ratio
LOWEST_OBSERVED, HIGHEST_OBSERVED = 0.25, 16.0  # bytes per token; what is further off is an attack or a fault
LOWEST_RATIO = 0.5  # bytes per token; no tokenizer in use makes two tokens of every byte


@dataclass(frozen=True, slots=True)
class Average:
    """A bias-corrected exponential average: of n observations, the newest weighs (1 - beta) / (1 - beta^n)."""

    n: int
    mean: float
    deviation: float = 0.0


@dataclass(frozen=True, slots=True)
class Beliefs:
    """What has been learned that bears on one request. An average of n = 0 is a prior."""

    of_model: Average = Average(0, PRIOR_BYTES_PER_TOKEN)
    of_entitlement: Average = Average(0, PRIOR_BYTES_PER_TOKEN)
    overhead_of_model: Average = Average(0, PRIOR_MESSAGE_TOKENS)
    overhead_of_entitlement: Average = Average(0, PRIOR_MESSAGE_TOKENS)
    output: Average = Average(0, PRIOR_OUTPUT_TOKENS)  # high quantile, of requests with a limit of their own
    open_output: Average = Average(0, PRIOR_OUTPUT_TOKENS)  # the same of those without
    stream_bytes_per_token: float = PRIOR_STREAM_BYTES_PER_TOKEN

    @property
    def ratio(self) -> Average:
        """The entitlement's own average once it has enough observations, else its model's."""
        return self.of_entitlement if self.of_entitlement.n >= OWN_OBSERVATIONS else self.of_model

    @property
    def message_tokens(self) -> float:
        """What the chat template adds to a message, by the same rule."""
        own = self.overhead_of_entitlement
        return (own if own.n >= OWN_OBSERVATIONS else self.overhead_of_model).mean


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
    spread = model.routing.sigmas * _deviation(ratio)
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


def _deviation(ratio: Average) -> float:
    return ratio.deviation if ratio.n > 0 else ratio.mean * PRIOR_DEVIATION_SHARE


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


def weight(n: int, beta: float = BETA) -> float:
    """The weight of the newest of n observations."""
    return (1 - beta) / (1 - beta**n)


def bytes_per_token(text_bytes: int, tokens: float) -> float:
    """One observation, within what any tokenizer could give."""
    return min(max(text_bytes / max(1, tokens), LOWEST_OBSERVED), HIGHEST_OBSERVED)


def learn_ratio(average: Average, observed: float, *, bounded: bool) -> Average:
    """One more observation of bytes per token; `bounded`: none moves the mean by more than a doubling would."""
    n = average.n + 1
    if bounded and n > 10:  # noqa: PLR2004 - by then the mean says what is far off
        observed = min(max(observed, average.mean / 2), average.mean * 2)
    w = weight(n)
    deviation = average.deviation + w * (abs(observed - average.mean) - average.deviation)
    return Average(n, average.mean + w * (observed - average.mean), deviation)


def learn_output(average: Average, tokens: float, *, cut: bool = False) -> Average:
    """One more length of an answer; tracks its OUTPUT_QUANTILE (Robbins and Monro 1951, on the logarithm).

    `cut`: it would have been longer. Whether longer than the quantile, a shorter one does not tell: it teaches nothing.
    """
    if cut and average.n > 0 and tokens <= average.mean:
        return average
    n = average.n + 1
    mean = float(tokens) if average.n == 0 else average.mean
    step = max(OUTPUT_LAST_STEP, OUTPUT_FIRST_STEP / math.sqrt(n))
    direction = OUTPUT_QUANTILE if tokens > mean else OUTPUT_QUANTILE - 1
    return Average(n, max(1.0, mean * math.exp(step * direction)))
