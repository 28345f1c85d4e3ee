"""Policies: the named rules that settings and decorators declare."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ratelimit.charge import GLOBAL, Kind
from ratelimit.fields import (
    PRINTABLE,
    Amount,
    AnyRate,
    Burst,
    Checked,
    Cost,
    Dimensions,
    Methods,
    Paths,
    PlanAmount,
    PlanRate,
    Share,
    Statuses,
    Text,
    nonzero,
    whole_number,
)
from ratelimit.periods import Period
from ratelimit.rate import MAX_LIMIT, Rate
from ratelimit.schedule import Hours

BUILT_IN_DIMENSIONS: Final = ("token", "org", "ip", "plan", "endpoint", "method")
"""What `per` may name without a declaration in the settings."""

MOST_SLOTS: Final = 100_000
"""The largest limit of a `Concurrency`: the store keeps one entry for each holder."""

LONGEST_LEASE: Final = 86_400
"""The longest lease in seconds, a day: slots of a worker that died come back after it."""

FailureMode = Literal["local", "allow", "deny"]


def _scope(value: str, info: ValidationInfo) -> str:
    """Return what was given, or the default, which depends on `per`."""
    if value:
        if not re.fullmatch(PRINTABLE, value):
            raise ValueError(f"{value!r} is not printable ASCII")
        return value
    per: tuple[str, ...] = info.data.get("per", ())
    if "endpoint" in per:
        return "endpoint"
    return per[0] if per else GLOBAL


def _several(value: Any) -> Any:
    """Let one table of hours stand for a list of one."""
    return [value] if isinstance(value, (Hours, Mapping)) else value


class Policy(Checked):
    """What all kinds of policies share.

    `name` is printable ASCII and unique in the settings. `per` names the dimensions that each have a counter of their
    own (empty: one counter for everybody); the policy does not apply to an identity that lacks one of them. `methods`
    and `paths` (route templates, or globs in which `*` also crosses `/`) narrow it; empty means all. `cost` is what
    one request takes, in units: a number, or a function of the request, sync or async, that may read its body and may
    return 0. `scope` is the label in headers and problems: by default `endpoint` if
    that is in `per`, else the first dimension, else `global`. `shares` lets identities of a priority fill only a part
    (above 0, at most 1) of the limit, the burst not among it, whoever has used it. `schedule` are hours with another
    rate or limit, the first that holds. A `shadow` policy counts and reports but refuses nobody. `on_store_failure`
    says what happens to a request while the store is away. `refund_on` are statuses of the app's answer that give the
    charge back. `code` and `detail` speak in the problem instead of the defaults. Wrong values raise
    `pydantic.ValidationError`, which names the field's path.
    """

    name: Text
    per: Dimensions = ()
    methods: Methods = ()
    paths: Paths = ()
    cost: Cost = 1
    scope: Annotated[str, Field(max_length=100, validate_default=True), AfterValidator(_scope)] = ""
    shares: Mapping[str, Share] = Field(default_factory=dict)
    schedule: Annotated[tuple[Hours, ...], BeforeValidator(_several)] = ()
    shadow: bool = False
    on_store_failure: FailureMode = "local"
    refund_on: Statuses = ()
    code: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=100)] | None = None
    detail: Annotated[str, Field(min_length=1, max_length=1000)] | None = None

    kind: ClassVar[Kind]
    """Which of the three kinds this is."""

    @property
    def amount(self) -> Rate | int:
        """The rate or limit that holds where nothing else speaks."""
        raise NotImplementedError

    @property
    def by_plan(self) -> Mapping[str, Rate | int | None]:
        """The rates or limits of plans; `None` is no limit."""
        raise NotImplementedError

    @field_validator("schedule")
    @classmethod
    def _check_schedule(cls, hours: tuple[Hours, ...]) -> tuple[Hours, ...]:
        wanted, other = ("rate", "limit") if cls is Limit else ("limit", "rate")
        for i, each in enumerate(hours):
            if getattr(each, wanted) is None:
                raise ValueError(f"{i}: a {cls.__name__} needs hours with a {wanted}, not with a {other}")
        return hours


class Limit(Policy):
    """Admit `rate` over a sliding window, plus `burst` times its limit once in a while.

    `rate` is a `Rate` or its text. `burst` is a share 0…1 of the limit: what is used of it in one window is taken off
    the next, so any k consecutive windows admit at most k·L + L·burst. `plans` gives identities with that plan another
    rate; `None` (`"unlimited"` in TOML) means that the limit does not apply to them, `"0/minute"` blocks them. `unit`
    names what is counted. `lease` are units that a worker may take at once from a store that others share and spend
    itself, for keys that are asked for very often: never beyond the limit, and fewer the less remains; what it does not
    spend within 1/64 of the window is lost for that window.
    """

    if TYPE_CHECKING:
        # What type checkers are to accept: texts and lists, which the validators turn into what the fields say.
        def __init__(
            self,
            *,
            name: str,
            rate: Rate | str,
            per: str | Sequence[str] = (),
            burst: float = 0.0,
            plans: Mapping[str, Rate | str | None] = ...,
            unit: str = "requests",
            lease: int = 0,
            methods: str | Sequence[str] = (),
            paths: str | Sequence[str] = (),
            cost: Cost = 1,
            scope: str = "",
            shares: Mapping[str, float] = ...,
            schedule: Sequence[Hours] = (),
            shadow: bool = False,
            on_store_failure: FailureMode = "local",
            refund_on: int | Sequence[int] = (),
            code: str | None = None,
            detail: str | None = None,
        ) -> None: ...

    kind: ClassVar[Kind] = "limit"
    rate: Annotated[AnyRate, AfterValidator(nonzero)]
    burst: Burst = 0.0
    plans: Mapping[str, PlanRate] = Field(default_factory=dict)
    unit: Text = "requests"
    lease: Annotated[int, Field(ge=0, le=MAX_LIMIT), BeforeValidator(whole_number)] = 0

    @property
    def amount(self) -> Rate:  # noqa: D102
        return self.rate

    @property
    def by_plan(self) -> Mapping[str, Rate | None]:  # noqa: D102
        return self.plans


class Counted(Policy):
    """What quotas and concurrency share: `limit` and `plans` are whole numbers."""

    limit: Amount
    plans: Mapping[str, PlanAmount] = Field(default_factory=dict)

    @property
    def amount(self) -> int:  # noqa: D102
        return self.limit

    @property
    def by_plan(self) -> Mapping[str, int | None]:  # noqa: D102
        return self.plans


class Quota(Counted):
    """Admit `limit` units per calendar period in UTC, or keep a level at or below it.

    `limit` and `plans` are whole numbers of `unit`. `period` is `hour`, `day`, `week` (from Monday), `month` or
    `year`, and turns over at midnight UTC (hours: on the hour); `None` is a level (gigabytes stored, items waiting)
    that comes down by `Limiter.release` alone. Exceeding it is answered with `status` 403; 429 says that waiting
    helps, as it does for a level that drains by itself.
    """

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            name: str,
            limit: int,
            period: Period | None = None,
            unit: str = "requests",
            per: str | Sequence[str] = (),
            plans: Mapping[str, int | str | None] = ...,
            status: Literal[403, 429] = 403,
            methods: str | Sequence[str] = (),
            paths: str | Sequence[str] = (),
            cost: Cost = 1,
            scope: str = "",
            shares: Mapping[str, float] = ...,
            schedule: Sequence[Hours] = (),
            shadow: bool = False,
            on_store_failure: FailureMode = "local",
            refund_on: int | Sequence[int] = (),
            code: str | None = None,
            detail: str | None = None,
        ) -> None: ...

    kind: ClassVar[Kind] = "quota"
    period: Period | None = None
    unit: Text = "requests"
    status: Literal[403, 429] = 403


class Concurrency(Counted):
    """Admit `limit` requests at once; each holds one slot, whatever it costs.

    A slot is given back when the last chunk of the body was sent (`hold="response"`) or when background tasks have
    ended too (`hold="background"`), and in any case when the request fails or is cut off. It is renewed meanwhile; the
    slots of a worker that was killed come back after `lease` seconds (0.05…86,400).
    """

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            name: str,
            limit: int,
            per: str | Sequence[str] = (),
            lease: float = 60.0,
            hold: Literal["response", "background"] = "response",
            plans: Mapping[str, int | str | None] = ...,
            methods: str | Sequence[str] = (),
            paths: str | Sequence[str] = (),
            scope: str = "",
            shares: Mapping[str, float] = ...,
            schedule: Sequence[Hours] = (),
            shadow: bool = False,
            on_store_failure: FailureMode = "local",
            code: str | None = None,
            detail: str | None = None,
        ) -> None: ...

    kind: ClassVar[Kind] = "concurrency"
    limit: Annotated[Amount, Field(le=MOST_SLOTS)]
    lease: Annotated[float, Field(ge=0.05, le=LONGEST_LEASE, allow_inf_nan=False)] = 60.0
    hold: Literal["response", "background"] = "response"

    @field_validator("cost", "refund_on")
    @classmethod
    def _check_slots(cls, value: Any, info: ValidationInfo) -> Any:
        if value not in (1, ()):
            raise ValueError(f"a holder takes one slot and gives it back by itself: {info.field_name} means nothing")
        return value

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        several = [*self.plans.values(), *(hours.limit for hours in self.schedule)]
        if any(limit is not None and limit > MOST_SLOTS for limit in several):
            raise ValueError(f"plans and schedule: at most {MOST_SLOTS} slots, as for the limit")
        return self

    @field_validator("lease", mode="before")
    @classmethod
    def _check_lease(cls, value: Any) -> Any:
        return whole_number(value)
