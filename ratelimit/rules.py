"""Policies, compiled: from an identity to the charges that one request makes at an endpoint."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from ratelimit.charge import GLOBAL, NEVER, Charge, Terms
from ratelimit.fields import share_of
from ratelimit.identity import Identity
from ratelimit.keys import Keys, escape
from ratelimit.periods import NOMINAL
from ratelimit.policy import Concurrency, Limit, Policy, Quota
from ratelimit.rate import Rate
from ratelimit.style import ResponseStyle

Amount = Rate | int
"""How much a policy admits: a rate for limits, a number for quotas and concurrency."""

Raised = tuple[Amount, int | None]
"""What an override says, and until when (epoch microseconds)."""

ANYBODY: Final = "*"
"""The value that a counter for everybody is named by."""

_MOST_TERMS: Final = 4096
"""Granted rates that are remembered per policy; beyond that they are made anew."""

_MOST_MADE: Final = 4096
"""Identities at endpoints whose charges are remembered, together; beyond that they are made anew."""

_LONGEST: Final = 256
"""Characters of an identity whose charges are remembered: callers choose them, but not how much memory they take."""

_MINUTE: Final = 60_000_000
_ATTRIBUTES: Final = ("org", "ip", "plan")


class Rule:
    """One policy, compiled: everything about it that depends neither on who asks nor on the endpoint.

    `raised` holds the overrides of this policy by the values of its dimensions, and changes while this is used.
    """

    def __init__(self, policy: Policy, keys: Keys, raised: Mapping[str, Raised]) -> None:
        self.policy = policy
        self.per = policy.per
        self._head = f"{keys.prefix}:{{"
        # A holder takes one slot; and what a function says of each request comes with that request.
        self.asks = callable(policy.cost)
        self._cost = policy.cost if isinstance(policy.cost, int) else 1
        self._scales = policy.kind != "concurrency"
        # All keys of one tenant live in one slot of a Cluster. A token belongs to one organization, so its counters
        # may go there too; an address or an endpoint is shared by many and must have one counter wherever it shows up.
        self._by_org = "org" in policy.per or "token" in policy.per
        self._raised = raised
        self._plain = not (policy.by_plan or policy.shares or policy.schedule)
        self._minute, self._scheduled = -1, None if policy.schedule else policy.amount
        self._terms: dict[tuple[Amount, float | None], tuple[Terms, str]] = {}
        self._usual = self._terms_of(policy.amount, None)

    @property
    def dimensions(self) -> set[str]:
        """What must be known of an identity."""
        return {*self.per, "org"} if self._by_org else set(self.per)

    def charge(
        self, identity: Identity, cost: int, values: Mapping[str, str], now: int, asked: Mapping[str, int]
    ) -> Charge | None:
        """Return what this policy charges `identity` at `now` (epoch µs), or `None` where it does not apply to it.

        `values` are those of all `dimensions`, ready for keys, and empty where they are not known. `asked` holds the
        costs that functions told for this request, by policy.
        """
        named = self.named(values)
        if not named:
            return None
        plain = self._plain and not self._raised and not identity.rates
        usual = self._usual if plain else self._of(identity, named, now)
        if usual is None:
            return None
        if self.asks:
            cost *= asked.get(self.policy.name, 1)
        terms, middle = usual
        partition = (values["org"] if self._by_org else "") or (values[self.per[0]] if self.per else ANYBODY)
        cost = min(NEVER, cost * self._cost) if self._scales else 1
        return Charge(terms, f"{self._head}{partition}{middle}{named}", cost)

    def named(self, values: Mapping[str, str]) -> str:
        """Return the values of this policy's dimensions as they stand in keys, empty where one is not known."""
        per = self.per
        if len(per) == 1:
            return values[per[0]]
        several = [values[dimension] for dimension in per]
        return "" if "" in several else ":".join(several) or ANYBODY

    def fitting(self, amount: Amount) -> Amount:
        """Return a rate or number as this policy counts: a number is a rate in its own period."""
        if isinstance(self.policy, Limit):
            return amount if isinstance(amount, Rate) else Rate(amount, self.policy.rate.period)
        return amount.limit if isinstance(amount, Rate) else amount

    def _of(self, identity: Identity, named: str, now: int) -> tuple[Terms, str] | None:
        """Return the terms for who asks: the first that speaks of grant, override, schedule, plan and policy."""
        policy = self.policy
        amount: Amount | None = identity.granted(policy.name)
        if amount is None and self._raised:
            amount = self._raised_to(named, now)
        if amount is None and policy.schedule:
            amount = self._in_hours(now)
        if amount is None:
            amount = policy.by_plan.get(identity.plan, policy.amount) if identity.plan is not None else policy.amount
        if amount is None:
            return None
        share = policy.shares.get(identity.priority) if identity.priority is not None else None
        amount = self.fitting(amount)
        return self._terms.get((amount, share)) or self._terms_of(amount, share)

    def _raised_to(self, named: str, now: int) -> Amount | None:
        amount, until = self._raised.get(named, (None, None))
        return None if until is not None and now >= until else amount

    def _in_hours(self, now: int) -> Amount | None:
        """Return what the schedule says; hours begin on the minute, so that it is asked once a minute."""
        if now // _MINUTE != self._minute:
            holding = (hours.amount for hours in self.policy.schedule if hours.hold(now))
            self._minute, self._scheduled = now // _MINUTE, next(holding, None)
        return self._scheduled

    def _terms_of(self, amount: Amount, share: float | None) -> tuple[Terms, str]:
        if len(self._terms) >= _MOST_TERMS:
            self._terms.clear()
        terms = _terms(self.policy, amount, share)
        middle = {"limit": terms.window, "quota": terms.period or "level", "concurrency": "slots"}[terms.kind]
        self._terms[amount, share] = terms, f"}}:{escape(self.policy.name)}:{middle}:"
        return self._terms[amount, share]


def _terms(policy: Policy, amount: Amount, share: float | None) -> Terms:
    limit = amount.limit if isinstance(amount, Rate) else amount
    common = {
        "kind": policy.kind,
        "policy": policy.name,
        "scope": policy.scope,
        "limit": limit,
        "share": None if share is None else share_of(limit, share),
        "shadow": policy.shadow,
        "on_store_failure": policy.on_store_failure,
        "code": policy.code,
        "detail": policy.detail,
        "refund_on": policy.refund_on,
    }
    if isinstance(policy, Limit) and isinstance(amount, Rate):
        common |= {"window": amount.period, "allowance": share_of(limit, policy.burst), "unit": policy.unit}
        common |= {"ahead": 0 if policy.shadow else policy.lease}
    elif isinstance(policy, Quota):
        window = NOMINAL[policy.period] if policy.period else 0
        common |= {"window": window, "period": policy.period, "unit": policy.unit, "status": policy.status}
        if policy.scope == GLOBAL:  # The capacity of the service is nobody's own quota.
            common |= {"status": 429}
    elif isinstance(policy, Concurrency):
        common |= {"unit": "concurrent-requests", "lease": max(1, round(policy.lease * 1000)), "hold": policy.hold}
    return Terms(**common)  # type: ignore[arg-type]


class Made:
    """The charges that were made for callers who come again; whoever changes what they would be forgets them all.

    `changing` says that they depend on the time, because an override ends; `forgotten` counts how often that was done.
    """

    def __init__(self) -> None:
        self._charges: dict[tuple[object, ...], Sequence[Charge]] = {}
        self.get = self._charges.get
        self.changing = False
        self.forgotten = 0

    def keep(self, key: tuple[object, ...], charges: Sequence[Charge]) -> None:
        """Remember the charges of one caller at one endpoint."""
        if len(self._charges) >= _MOST_MADE:
            self._charges.clear()
        self._charges[key] = charges

    def forget(self, *, changing: bool) -> None:
        """Remember nothing that was made before."""
        self._charges.clear()
        self.forgotten += 1
        self.changing = changing


class Rules:
    """What holds at one endpoint: its policies, compiled, and the style of its answers."""

    def __init__(
        self, rules: Sequence[Rule], style: ResponseStyle, keys: Keys, made: Made, *, label: str, method: str
    ) -> None:
        self.rules = tuple(rules)
        self.policies = tuple(rule.policy for rule in rules)
        self.asking = tuple(rule.policy for rule in rules if rule.asks)
        self.kept = any(policy.kind == "concurrency" or policy.refund_on for policy in self.policies)
        self.style = style
        self.holds = any(policy.kind == "concurrency" for policy in self.policies)
        self._made = made
        self._steady = not any(policy.schedule for policy in self.policies)
        self._keys = keys
        self._fixed = {"endpoint": escape(label), "method": escape(method)}
        self._dimensions = sorted(set[str]().union(*(rule.dimensions for rule in self.rules)) - self._fixed.keys())

    def charges(
        self,
        identity: Identity,
        cost: int = 1,
        *,
        now: int = 0,
        beside: Sequence[Policy] = (),
        asked: Mapping[str, int] | None = None,
    ) -> Sequence[Charge]:
        """Return what one request of `identity` is charged, in the order in which the policies were declared.

        `now` are epoch microseconds, for schedules and overrides. `beside` are policies that an outer limiter has
        already charged for this request. `asked` are the costs that functions told for it, by policy.
        """
        plain = cost == 1 and asked is None and not beside and not identity.rates
        if not (plain and self._steady) or self._made.changing:
            return self._make(identity, cost, now, beside, asked or {})
        token, more = identity.token, identity.dimensions
        caller = (token, identity.org, identity.ip, identity.plan, identity.priority)
        key = (self, *caller, *more.items()) if more else (self, *caller)
        made = self._made.get(key)
        if made is None:
            forgotten = self._made.forgotten
            made = self._make(identity, cost, now, beside, {})
            if forgotten == self._made.forgotten and sum(map(len, map(str, key[1:]))) <= _LONGEST:
                self._made.keep(key, made)
        return made

    def _make(
        self, identity: Identity, cost: int, now: int, beside: Sequence[Policy], told: Mapping[str, int]
    ) -> Sequence[Charge]:
        values = {**self._fixed, **values_of(identity, self._dimensions, self._keys)}
        charges = []
        for rule in self.rules:
            if not beside or rule.policy not in beside:
                charge = rule.charge(identity, cost, values, now, told)
                if charge is not None:
                    charges.append(charge)
        return charges


def values_of(identity: Identity, dimensions: Iterable[str], keys: Keys) -> dict[str, str]:
    """Return the values of an identity's dimensions, ready for keys, and empty where they are not known."""
    return {dimension: _value(identity, dimension, keys) for dimension in dimensions}


def _value(identity: Identity, dimension: str, keys: Keys) -> str:
    if dimension == "token":
        return keys.hashed(identity.token) if identity.token else ""
    own = dimension in _ATTRIBUTES
    value = getattr(identity, dimension) if own else identity.dimensions.get(dimension)
    return "" if value is None or value == "" else escape(value)
