"""What is asked of a store."""

from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from ratelimit.periods import Period

Kind = Literal["limit", "quota", "concurrency", "pace"]
"""The three kinds of policies, and the turns of a pacer."""

NEVER: Final = 2**53 - 1
"""The wait, in milliseconds, of a cost that can never be admitted: the largest integer that Lua holds exactly."""

GLOBAL: Final = "global"
"""The scope of a policy that has one counter for everybody."""

MAX_SLOTS: Final = 64
"""Into how many slots a window is cut."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Terms:
    """The numbers and words of one policy for one kind of caller: made once, shared by every charge under them.

    `limit`, `allowance` (the burst) and `ceiling` (their sum) are units; `cap` is how far this caller may fill the
    policy, `usable` what it is told as its limit. `window` is in seconds (0: levels and slots). `slot` and `span` are
    milliseconds, `span` being the whole slots that cover the window; `lease` is how many of them a slot is held
    without renewal, and `ahead` how many units a worker may take at once; `patience` is how many of them a turn of a pace may
    be away. Compared by identity, so that a batch names each only once.
    """

    kind: Kind
    policy: str
    scope: str
    limit: int
    window: int = 0
    allowance: int = 0
    share: int | None = None
    shadow: bool = False
    on_store_failure: str = "local"
    code: str | None = None
    detail: str | None = None
    status: int = 429
    unit: str = "requests"
    period: Period | None = None
    lease: int = 0
    ahead: int = 0
    patience: int = NEVER
    hold: str = "response"
    refund_on: tuple[int, ...] = ()
    ceiling: int = field(init=False)
    cap: int = field(init=False)
    usable: int = field(init=False)
    slot: int = field(init=False)
    span: int = field(init=False)
    speaks: bool = field(init=False)
    head: tuple[str, Kind, str, int] = field(init=False, repr=False)
    tail: tuple[str | None, str | None, int, str, Period | None] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        window, ceiling = self.window * 1000, self.limit + self.allowance
        slot = 1 if ceiling <= MAX_SLOTS else max(1, -(-window // MAX_SLOTS))
        cap = ceiling if self.share is None else min(self.share, ceiling)
        for name, value in (
            ("ceiling", ceiling),
            ("cap", cap),
            ("usable", min(self.limit, cap)),
            ("slot", slot),
            ("span", -(-window // slot) * slot),
            # Whether it may be the binding limit of what is admitted.
            ("speaks", self.kind == "limit" and not self.shadow),
            # What a service limit under these terms begins and ends with.
            ("head", (self.policy, self.kind, self.scope, min(self.limit, cap))),
            ("tail", (self.code, self.detail, self.status, self.unit, self.period)),
        ):
            object.__setattr__(self, name, value)


class Charge(NamedTuple):
    """One debit of `cost` units asked of one policy at one partition key: all that a store knows.

    Below zero it is a credit, where one is asked for. A holder takes one slot of a concurrency limit, whatever it costs.
    """

    # A tuple like the service limit that answers it: several of both are made for each request, and a frozen
    # dataclass takes four times as long to make.

    terms: Terms
    key: str
    cost: int = 1
