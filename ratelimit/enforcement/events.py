"""Events: what listeners get to know, as values without a credential."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from ratelimit.enforcement.decision import Decision
from ratelimit.model.charge import Charge
from ratelimit.model.service_limit import ServiceLimit

Result = Literal["admitted", "refused", "unavailable", "unlimited", "exempt"]
Source = Literal["store", "cache", "prefetch", "local"]
PolicyState = Literal["within", "near", "over", "shadow_over"]

NEAR: Final = 0.8
"""The share of a limit from which on its use is near."""

BLOCKED: Final = "blocked"
"""The name that stands for a block where a refusal names its policy."""


@dataclass(slots=True, frozen=True, kw_only=True)
class DecisionEvent:
    """One request was decided, or needed no decision (`result` is `unlimited` or `exempt`).

    `policy` is the one that refused it. `charges` are what was asked, in the order of `decision.limits`. `route` is the
    route template, `seconds` how long the decision took. `label` names the caller: the beginning of its token's hash, else
    its organization, else its address without its last part; never the token. `caller` names it to an operator: `token_hash`,
    `org` and `plan`, as far as they are known. `request_id` is that of the answer.
    """

    result: Result
    decision: Decision
    charges: Sequence[Charge] = ()
    source: Source = "store"
    method: str = ""
    route: str = ""
    label: str = ""
    caller: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    request_id: str | None = None

    @property
    def policy(self) -> str | None:
        """The policy that the answer names: the violated one with the longest wait."""
        if self.decision.is_blocked:
            return BLOCKED
        binding = None if self.decision.allowed else self.decision.binding
        return None if binding is None else binding.policy

    def state_of(self, limit: ServiceLimit, near: float = NEAR) -> PolicyState:
        """Return how a limit stands: over where it refused (or, in shadow, would have), else near or within."""
        if limit.retry_after:
            return "shadow_over" if limit.shadow else "over"
        return "near" if limit.limit - limit.remaining >= near * limit.limit else "within"


def result_of(decision: Decision, charges: Sequence[Charge]) -> Result:
    """Return what came of a request."""
    if decision.allowed:
        return "admitted" if charges else "unlimited"
    return "unavailable" if decision.status == 503 and decision.binding is None else "refused"


@dataclass(slots=True, frozen=True, kw_only=True)
class CorrectionEvent:
    """Units of one policy were corrected after their decision, by so many units."""

    policy: str
    action: Literal["settled", "refunded", "released", "forced"]
    units: int


@dataclass(slots=True, frozen=True, kw_only=True)
class StoreCallEvent:
    """One request to the store ended: its operation, how it ended, and the seconds for which its caller waited."""

    operation: str
    outcome: Literal["ok", "timeout", "error"]
    seconds: float


@dataclass(slots=True, frozen=True, kw_only=True)
class StoreEvent:
    """The store became unavailable, or is available again; `error` says why, without an address or credentials."""

    is_available: bool
    error: str | None = None


@dataclass(slots=True, frozen=True, kw_only=True)
class OverrideEvent:
    """The overrides or blocks that hold in this worker have changed; the numbers of each that hold now."""

    overrides: int
    blocks: int


@dataclass(slots=True, frozen=True, kw_only=True)
class ReloadEvent:
    """The settings were loaded again: `applied`, `unchanged`, or `rejected`, which `error` explains."""

    result: Literal["applied", "unchanged", "rejected"]
    error: str | None = None
