"""Who may use what: API keys and identities to entitlements, aliases to models."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from extproc.core.policy import Entitlement, Model, Policy

BEARER = "bearer "


class Directory:
    """Built once from the policy; every look-up is of constant time."""

    def __init__(self, policy: Policy) -> None:
        self._models = {name: model for model in policy.models for name in (model.name, *model.aliases)}
        self._by_hash: dict[str, dict[str, Entitlement]] = {}
        self._by_name = {e.name: {e.model: e} for e in policy.entitlements}
        for entitlement in policy.entitlements:
            for digest in entitlement.key_hashes:
                self._by_hash.setdefault(digest, {})[entitlement.model] = entitlement

    def model(self, name: str) -> Model | None:
        return self._models.get(name)

    def of_key(self, key: str) -> Mapping[str, Entitlement] | None:
        """A key's entitlements by model; None for a key nobody has."""
        # Looked up by its hash: what the look-up's time could tell is of the hash, not of the key.
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        return self._by_hash.get(f"sha256:{digest}")

    def of_identity(self, name: str) -> Mapping[str, Entitlement] | None:
        """The entitlement that a trusted filter in front has named."""
        return self._by_name.get(name)


def api_key(authorization: str, x_api_key: str) -> str:
    """The client's key: OpenAI's header, or Anthropic's; "" where there is none."""
    if authorization[: len(BEARER)].lower() == BEARER:
        return authorization[len(BEARER) :].strip()
    return x_api_key.strip()
