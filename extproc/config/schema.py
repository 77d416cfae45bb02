"""What tokenpool.yaml may say: its keys, their types, bounds and defaults. The reference in docs/ is made from it."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from extproc.core.policy import (
    DEFAULT_WINDOW_SECONDS,
    Cost,
    FailMode,
    MarketTerms,
    MediaTokens,
    Policy,
    Prioritise,
    Reserve,
    Routing,
    Scaling,
    ServiceClass,
    Sharing,
    StreamUsage,
)
from extproc.core.settings import MIB, Settings

REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "redis+cluster")

_SETTINGS = Settings(policy=Policy((), ()))  # for its defaults
_MAX_UNITS = 1_000_000_000  # times an hour's window in milliseconds it stays below 2**53, exact as a Lua number
_MAX_BODY_BYTES = 1024 * MIB  # gRPC and Envoy count message bytes in 32 bits
_NAME_LENGTH = 128
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]*")
_HOST_PORT = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")
_SIM = re.compile(r"sim://(\?[!-~]*)?")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.6.2
_KEY_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_MAX_PORT = 65_535


def _name(value: str) -> str:
    if len(value) <= _NAME_LENGTH and _NAME.fullmatch(value):
        return value
    raise ValueError(f"must be 1 to {_NAME_LENGTH} letters, digits or . _ - and start with a letter or digit")


def _model_name(value: str) -> str:
    if len(value) <= _NAME_LENGTH and _MODEL_NAME.fullmatch(value):
        return value
    raise ValueError(f"must be 1 to {_NAME_LENGTH} letters, digits or . _ / : - and start with a letter or digit")


def _is_host_port(value: str) -> bool:
    match = _HOST_PORT.fullmatch(value)
    if match is None or not 0 < int(match["port"]) <= _MAX_PORT:
        return False
    return not value.startswith("[") or _is_ipv6(match["host"][1:-1])


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def _endpoint(value: str) -> str:
    scheme, _, rest = value.partition("://")
    if _SIM.fullmatch(value) or (scheme in ("http", "https") and _is_host_port(rest)):
        return value
    raise ValueError("must be http://HOST:PORT or https://HOST:PORT without a path, or sim:// or sim://?OPTION=VALUE")


def _host_port(value: str) -> str:
    if _is_host_port(value):
        return value
    raise ValueError("must be HOST:PORT, such as 127.0.0.1:4317")


def _redis(value: str) -> str:
    scheme, _, rest = value.partition("://")
    if scheme in REDIS_SCHEMES and rest and not re.search(r"\s", rest):
        return value
    raise ValueError(f"must be a URL such as redis://HOST:6379/0; the schemes are {', '.join(REDIS_SCHEMES)}")


def _header(value: str) -> str:
    if _HEADER.fullmatch(value):
        return value
    raise ValueError("must be the name of an HTTP header, such as x-tenant")


def key_hash(value: str) -> str:
    """Raises ValueError, which never repeats the value: it may be the key itself."""
    if _KEY_HASH.fullmatch(value):
        return value
    if value.startswith("sha256:"):
        raise ValueError("must be sha256: and 64 lowercase hexadecimal digits")
    raise ValueError("must be the hash of a key, sha256:..., not the key itself; `tokenpool key --hash` makes one")


def _not_empty(value: str) -> str:
    if value:
        return value
    raise ValueError("must not be empty")


Name = Annotated[str, AfterValidator(_name)]
ModelName = Annotated[str, AfterValidator(_model_name)]
Text = Annotated[str, AfterValidator(_not_empty)]
Units = Annotated[int, Field(ge=1, le=_MAX_UNITS)]
Weight = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]


class Part(BaseModel):
    """A mapping in the file. An unknown key or a value of another type is a mistake, never a guess."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class CapacityPart(Part):
    tokens_per_second: Units = Field(description="Prompt and output tokens that one server handles in a second.")
    kv_tokens: Units = Field(description="Tokens that fit into one server's KV cache.")
    concurrency: Units = Field(description="Requests that one server runs at a time.")


class PoolPart(Part):
    endpoints: list[Annotated[str, AfterValidator(_endpoint)]] = Field(
        min_length=1,
        description="The servers: `http://HOST:PORT`, `https://HOST:PORT`, or `sim://` for one that `tokenpool up` "
        "simulates (`sim://?speed=10` answers ten times as fast).",
    )
    max_model_len: Units = Field(
        description="The servers' `--max-model-len`: the longest request they take, in tokens."
    )
    capacity: CapacityPart = Field(description="What ONE server gives.")
    threshold_tokens: Units | None = Field(
        default=None,
        description="Requests with a larger budget prefer the next longer pool. Left out, `max_model_len`; of the "
        "shortest pool, `routing.threshold_tokens`. Of the longest pool it means nothing.",
    )


class RoutingPart(Part):
    threshold_tokens: Units = Field(
        default=Routing().threshold_tokens,
        description="Requests with a larger budget prefer a longer pool than the shortest. Left out, never more than "
        "the longest pool's `max_model_len`.",
    )
    sigmas: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = Field(
        default=Routing().sigmas,
        description="How many deviations of the learned bytes per token the estimate stays on the safe side.",
    )
    spill: bool = Field(
        default=Routing().spill,
        description="Whether a request may take another pool that can hold it when its own is full or down.",
    )


class CostPart(Part):
    prompt: Weight = Field(default=Cost().prompt, description="Weight of a prompt token.")
    cached_prompt: Weight = Field(
        default=Cost().cached_prompt, description="Weight of a prompt token that the prefix cache served."
    )
    completion: Weight = Field(default=Cost().completion, description="Weight of a generated token.")


class MediaPart(Part):
    image_tokens: Annotated[int, Field(ge=0, le=_MAX_UNITS)] = Field(
        default=MediaTokens().image, description="Tokens that one image counts for."
    )
    audio_tokens: Annotated[int, Field(ge=0, le=_MAX_UNITS)] = Field(
        default=MediaTokens().audio, description="Tokens that one audio part counts for."
    )


class ClassWeightsPart(Part):
    elastic: Positive = Field(default=Sharing().elastic_weight, description="Also for bursts above a promised base.")
    spot: Positive = Field(default=Sharing().spot_weight, description="Beside preemptible.")
    preemptible: Positive = Field(default=Sharing().preemptible_weight, description="Beside spot.")


class SharingPart(Part):
    lend_to_spot: bool = Field(
        default=Sharing().lend_to_spot,
        description="Whether spot requests may run on idle guaranteed bases, and be ended when those are claimed; "
        "else only preemptible ones may.",
    )
    headroom_requests: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=Sharing().headroom_requests,
        description="How many requests' room of the idle guaranteed bases stays unlent in each pool, so that the next "
        "one need not end another.",
    )
    weights: ClassWeightsPart = Field(default=ClassWeightsPart(), description="Weight of each class in its round.")
    slo_reference_ms: Annotated[int, Field(ge=1, le=3_600_000)] = Field(
        default=Sharing().slo_reference_ms, description="The time to first token whose SLO factor is 1."
    )
    slo_exponent: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = Field(
        default=Sharing().slo_exponent,
        description="How strongly a tighter SLO weighs: (reference / SLO) to this power, between 0.5 and 2.",
    )
    overuse_discount: Weight = Field(
        default=Sharing().overuse_discount,
        description="How much use above the base takes off the weight: 1 / (1 + this * (use / base - 1)).",
    )
    debt_seconds: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] = Field(
        default=Sharing().debt_seconds, description="Time constant with which debt rises and decays."
    )
    debt_gain: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = Field(
        default=Sharing().debt_gain, description="How strongly debt weighs: e to the power of this times the debt."
    )


class ScalingPart(Part):
    target_utilisation: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = Field(
        default=Scaling().target_utilisation,
        description="How full the servers may be with what is in demand beside the promises.",
    )
    scale_down_seconds: Annotated[int, Field(ge=0, le=86_400)] = Field(
        default=Scaling().scale_down_seconds,
        description="For how long fewer servers must have been enough before fewer are asked for.",
    )


class ModelPart(Part):
    name: ModelName = Field(description='What clients name in `"model"`, and the name under which vLLM serves it.')
    aliases: list[ModelName] = Field(default=[], description="Further names by which clients may ask for it.")
    pools: dict[Name, PoolPart] = Field(
        min_length=1,
        description="Sets of identical servers by name, usually `short` and `long`, or a single `default`.",
    )
    routing: RoutingPart = Field(default=RoutingPart(), description="How a pool is chosen.")
    stream_usage: Annotated[StreamUsage, Field(strict=False)] = Field(
        default=StreamUsage.STRIP, description="What becomes of a stream's usage event that the client did not ask for."
    )
    reserve: Annotated[Reserve, Field(strict=False)] = Field(
        default=Reserve.EXPECTED,
        description="What a lease holds for output: what this entitlement usually generates, or all of `max_tokens`.",
    )
    cost: CostPart = Field(default=CostPart(), description="Weights of a settled token, by kind.")
    media: MediaPart = Field(default=MediaPart(), description="What images and audio count for.")
    sharing: SharingPart = Field(default=SharingPart(), description="How unclaimed capacity is lent and shared.")
    scaling: ScalingPart = Field(default=ScalingPart(), description="How many servers are asked for.")


class BurstPart(Part):
    seconds: Annotated[int, Field(ge=1, le=3600)] = Field(
        default=DEFAULT_WINDOW_SECONDS, description="How many seconds of its rates an entitlement may save up."
    )
    tokens_per_second: Units | None = Field(default=None, description="Cap; left out, the entitlement's own figure.")
    kv_tokens: Units | None = Field(default=None, description="Cap; left out, the entitlement's own figure.")
    concurrency: Units | None = Field(default=None, description="Cap; left out, the entitlement's own figure.")


class SloPart(Part):
    ttft_ms: Annotated[int, Field(ge=1, le=3_600_000)] = Field(
        description="The time to the first token that the tenant should see, in milliseconds."
    )


class MarketPart(Part):
    price_elasticity: Weight = Field(default=MarketTerms().price_elasticity, description="Bid per token.")
    budget: Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)] = Field(
        default=MarketTerms().budget, description="Credits to spend in one period."
    )
    period_seconds: Annotated[int, Field(ge=1, le=31_622_400)] = Field(
        default=MarketTerms().period_seconds, description="After how long the budget is granted anew, in seconds."
    )


class EntitlementPart(Part):
    name: Name = Field(description="The tenant's name in metrics, logs and the console; unique in the file.")
    model: ModelName = Field(description="The name of the model that it is for.")
    service_class: Annotated[ServiceClass, Field(strict=False)] = Field(
        alias="class", description="What is promised, and who yields to whom when room is scarce."
    )
    keys: list[Annotated[str, AfterValidator(key_hash)]] = Field(
        default=[],
        description="Hashes of its API keys, `sha256:` and 64 hexadecimal digits; `tokenpool key` makes one.",
    )
    keys_file: Text | None = Field(
        default=None,
        description="A file with more hashes, one a line, `#` for comments; its path is relative to this file.",
    )
    tokens_per_second: Units = Field(description="Promised rate; for spot and preemptible only a cap.")
    kv_tokens: Units = Field(description="Promised KV-cache tokens; for spot and preemptible only a cap.")
    concurrency: Units = Field(description="Promised concurrent requests; for spot and preemptible only a cap.")
    burst: BurstPart = Field(default=BurstPart(), description="Caps above the promise, used when there is room.")
    slo: SloPart | None = Field(default=None, description="What the tenant should experience.")
    max_wait_ms: Annotated[int, Field(ge=0, le=600_000)] = Field(
        default=0, description="How long a request may wait for room before it is refused, in milliseconds."
    )
    max_waiting: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=100, description="How many requests may wait at a time; of a whole model never more than 1000."
    )
    prioritise: Annotated[Prioritise, Field(strict=False)] = Field(
        default=Prioritise.NONE, description="Which of the tenant's own waiting requests goes first."
    )
    market: MarketPart | None = Field(default=None, description="Terms for buying surplus tokens.")


class MetadataPart(Part):
    namespace: Text = Field(description="Namespace of the dynamic metadata, such as `envoy.filters.http.jwt_authn`.")
    key: Text = Field(description="Key in that namespace whose value is the entitlement's name.")


class IdentityPart(Part):
    header: Annotated[str, AfterValidator(_header)] | None = Field(
        default=None, description="Request header whose value is the entitlement's name."
    )
    metadata: MetadataPart | None = Field(default=None, description="Dynamic metadata that names the entitlement.")

    @model_validator(mode="after")
    def one_source(self) -> Self:
        if (self.header is None) == (self.metadata is None):
            raise ValueError("must have either header or metadata, and not both")
        return self


class TracingPart(Part):
    otlp_grpc: Annotated[str, AfterValidator(_host_port)] = Field(
        description="`HOST:PORT` of the OTLP/gRPC collector to which Envoy sends its spans."
    )
    sample_percent: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = Field(
        default=100.0, description="How many of a hundred requests are traced."
    )


class FilePart(Part):
    redis: Annotated[str, AfterValidator(_redis)] | None = Field(
        default=None,
        description=f"URL of the shared state, by scheme {', '.join(f'`{scheme}`' for scheme in REDIS_SCHEMES)}. "
        "Left out, `tokenpool up` starts its own.",
    )
    fail: Annotated[FailMode, Field(strict=False)] = Field(
        default=FailMode.CLOSED,
        description="What Envoy does while no sidecar answers: refuse with 503, or send everything to the long pool.",
    )
    identity: IdentityPart | None = Field(
        default=None,
        description="Where an auth filter in front names the entitlement, instead of API keys: `header` or `metadata`.",
    )
    tracing: TracingPart | None = Field(default=None, description="Envoy's tracing; left out, there is none.")
    max_body_bytes: Annotated[int, Field(ge=1, le=_MAX_BODY_BYTES)] = Field(
        default=_SETTINGS.max_body_bytes,
        description="The largest request body; larger ones are refused with 413.",
    )
    request_timeout_seconds: Annotated[int, Field(ge=1, le=86_400)] = Field(
        default=_SETTINGS.request_timeout_seconds,
        description="When Envoy ends a request that still runs.",
    )
    lease_seconds: Annotated[int, Field(ge=6, le=86_400)] = Field(
        default=_SETTINGS.lease_seconds,
        description=(
            "How long a lease outlives the last that Envoy said of its request; Envoy speaks six times in that while. "
            "Behind an Envoy configured by others, more than its longest request."
        ),
    )
    redis_timeout_ms: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=_SETTINGS.redis_timeout_ms,
        description="How long a verdict may wait for Redis before it is a 503.",
    )
    tick_ms: Annotated[int, Field(ge=50, le=60_000)] = Field(
        default=_SETTINGS.tick_ms,
        description="How often the controller sets shares, debts and desired servers.",
    )
    models: list[ModelPart] = Field(min_length=1, description="The models that are served.")
    entitlements: list[EntitlementPart] = Field(default=[], description="Who may use how much of them.")


Schema = dict[str, Any]


def json_schema() -> Schema:
    """The file's JSON schema, by the keys that the file uses."""
    return FilePart.model_json_schema(by_alias=True)


def resolve(node: Schema, root: Schema) -> Schema:
    """What a node of the JSON schema stands for, past references and the alternative of leaving it empty."""
    while "$ref" in node or "anyOf" in node:
        node = root["$defs"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node["anyOf"][0]
    return node
