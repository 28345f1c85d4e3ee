"""Policies: the named rules that settings and decorators declare."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, TypedDict, Unpack

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from ratelimit.config.dimension_sources import DimensionSource, Source
from ratelimit.config.fields import (
    Burst,
    Cost,
    Dimensions,
    FrozenModel,
    Methods,
    Paths,
    PlanCount,
    PlanRate,
    PositiveInt,
    RateField,
    Share,
    Statuses,
    Text,
    check_nonzero,
    check_printable,
    invalid,
    not_bool,
)
from ratelimit.config.schedule import AsHours, CountHours, Hours, RateHours
from ratelimit.model.calendar_period import Period
from ratelimit.model.kinds import GLOBAL, Kind
from ratelimit.model.rate import MAX_LIMIT, Rate

BUILT_IN_DIMENSIONS: Final = ("token", "org", "ip", "plan", "endpoint", "method")
"""The dimensions that `per` may name without a declaration in the settings."""

MAX_CONCURRENCY: Final = 100_000
"""The largest limit of a `Concurrency`: the store keeps one entry for each holder."""

MAX_LEASE_SECONDS: Final = 86_400
"""The longest lease in seconds, a day: the permits of a killed worker are released after it."""

_CODE: Final = r"^[a-z0-9][a-z0-9_.-]*$"

FailureMode = Literal["local", "allow", "deny"]


class PolicyOptions(TypedDict, total=False):
    """The fields that all policies share, apart from `name`, `per` and `paths`, as type checkers accept them."""

    methods: str | Sequence[str]
    scope: str
    shares: Mapping[str, float]
    schedule: Sequence[Hours]
    key: DimensionSource | None
    shadow: bool
    on_store_failure: FailureMode
    manual: bool
    code: str | None
    detail: str | None


class UnitOptions(PolicyOptions, total=False):
    """The fields of policies that count units."""

    cost: Cost
    refund_on: int | Sequence[int]


class LimitOptions(UnitOptions, total=False):
    """The fields of `Limit` that a decorator takes beside its rate, `per` and name."""

    burst: float
    plans: Mapping[str, Rate | str | None]
    unit: str
    prefetch: int
    default: bool


def _check_scope(value: str, info: ValidationInfo) -> str:
    """Return the scope as it was given, or the default, which depends on `per`."""
    if value:
        return check_printable(value)
    per: tuple[str, ...] = info.data.get("per", ())
    if "endpoint" in per:
        return "endpoint"
    if not per and info.data.get("key") is not None:
        return str(info.data.get("name", ""))
    return per[0] if per else GLOBAL


def _check_code(value: str) -> str:
    if not re.fullmatch(_CODE, value):
        raise invalid(
            f"{value!r:.100} must begin with a-z or 0-9 and have no other characters than a-z 0-9 . _ - [RL114]"
        )
    return value


def _check_permits(limit: int | None) -> int | None:
    if limit is not None and limit > MAX_CONCURRENCY:
        raise invalid(f"must be at most {MAX_CONCURRENCY} permits [RL105]")
    return limit


def _check_permit_hours(hours: Hours) -> Hours:
    _check_permits(hours.limit)
    return hours


Code = Annotated[str, Field(max_length=100, json_schema_extra={"pattern": _CODE}), AfterValidator(_check_code)]
PermitHours = Annotated[CountHours, AfterValidator(_check_permit_hours)]


class Policy(FrozenModel):
    """The fields that all kinds of policies share.

    `name` is printable ASCII and unique in the settings. `per` names the dimensions that each have a counter of their
    own (empty: one counter for all callers); the policy does not apply to an identity that lacks one of them. `methods`
    and `paths` (route templates, or globs in which `*` also crosses `/`; those after a `!` are left out) narrow it; empty
    means all. A `manual` policy is not charged by requests, only by its name: `consume`, `slot`, `message`,
    `check(policies=…)`. `cost` is what one
    request takes, in units: a number, or a function of the request, sync or async, that may read its body and may
    return 0. `key` is a source of one more dimension, named as the policy: a place in the request, `"header:x-region"`, or a
    function of it; a request without a value there is not limited by it, and keys hold its hash. `scope` is the label in headers and problems: by default `endpoint` if that is in `per`, else the first
    dimension, else `global`. `shares` lets identities of a priority fill only a part (above 0, at most 1) of the limit,
    burst excluded, including what other priorities have used. `schedule` lists hours with another rate or limit; the first that holds wins. A
    `shadow` policy counts and reports but refuses no request. `on_store_failure` says what happens to a request while
    the store is unavailable. `refund_on` lists statuses of the app's response that give the charge back. `code` and
    `detail` replace the defaults in the problem. Wrong values raise `pydantic.ValidationError`, which names the
    field's path.
    """

    name: Text
    per: Dimensions = ()
    methods: Methods = ()
    paths: Paths = ()
    cost: Cost = 1
    key: Source = None
    scope: Annotated[str, Field(max_length=100, validate_default=True), AfterValidator(_check_scope)] = ""
    shares: Mapping[str, Share] = Field(default_factory=dict)
    schedule: Annotated[tuple[Hours, ...], AsHours] = ()
    shadow: bool = False
    on_store_failure: FailureMode = "local"
    manual: bool = False
    refund_on: Statuses = ()
    code: Code | None = None
    detail: Annotated[str, Field(min_length=1, max_length=1000)] | None = None

    kind: ClassVar[Kind]
    """Which of the three kinds this is."""

    @property
    def amount(self) -> Rate | int:
        """The policy's own rate or limit, for callers without another one."""
        raise NotImplementedError

    @property
    def by_plan(self) -> Mapping[str, Rate | int | None]:
        """The rates or limits of plans; `None` means no limit."""
        raise NotImplementedError


class Limit(Policy):
    """Admit `rate` over a sliding window, plus `burst` times its limit once in a while.

    `rate` is a `Rate` or its text. `burst` is a share 0…1 of the limit: the part of it that is used in one window is
    deducted from the next, so any k consecutive windows admit at most k·L + L·burst. `plans` gives identities with that
    plan another rate; `None` (`"unlimited"` in TOML) means that the limit does not apply to them, `"0/minute"` blocks
    them. `unit` names what is counted. `prefetch` is the number of units that a worker may take at once from a shared
    store and spend by itself, for keys that are charged very often: it never exceeds the limit, and takes less the less
    remains. Units that the worker does not spend within 1/64 of the window are lost for that window. A `default` limit
    gives way: it holds only where an endpoint has no limit of its own, by a decorator, a dependency, or a limit of the
    settings whose `paths` name it.
    """

    if TYPE_CHECKING:
        # Type checkers accept texts and lists, which the validators convert to the types of the fields.
        def __init__(
            self,
            *,
            name: str,
            rate: Rate | str,
            per: str | Sequence[str] = (),
            paths: str | Sequence[str] = (),
            **options: Unpack[LimitOptions],
        ) -> None: ...

    kind: ClassVar[Kind] = "limit"
    rate: Annotated[RateField, AfterValidator(check_nonzero)]
    schedule: Annotated[tuple[RateHours, ...], AsHours] = ()
    burst: Burst = 0.0
    plans: Mapping[str, PlanRate] = Field(default_factory=dict)
    unit: Text = "requests"
    prefetch: Annotated[int, Field(ge=0, le=MAX_LIMIT), BeforeValidator(not_bool)] = 0
    default: bool = False

    @property
    def amount(self) -> Rate:  # noqa: D102
        return self.rate

    @property
    def by_plan(self) -> Mapping[str, Rate | None]:  # noqa: D102
        return self.plans


class CountedPolicy(Policy):
    """The fields that quotas and concurrency share: `limit` and `plans` are whole numbers."""

    limit: PositiveInt
    schedule: Annotated[tuple[CountHours, ...], AsHours] = ()
    plans: Mapping[str, PlanCount] = Field(default_factory=dict)

    @property
    def amount(self) -> int:  # noqa: D102
        return self.limit

    @property
    def by_plan(self) -> Mapping[str, int | None]:  # noqa: D102
        return self.plans


class Quota(CountedPolicy):
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
            paths: str | Sequence[str] = (),
            plans: Mapping[str, int | str | None] = ...,
            status: Literal[403, 429] = 403,
            **options: Unpack[UnitOptions],
        ) -> None: ...

    kind: ClassVar[Kind] = "quota"
    period: Period | None = None
    unit: Text = "requests"
    status: Literal[403, 429] = 403


class Concurrency(CountedPolicy):
    """Admit `limit` requests at once; each holds one permit, whatever it costs.

    A permit is released when the last chunk of the body was sent (`hold="response"`) or when background tasks have
    ended too (`hold="background"`), and in any case when the request fails or is cut off. Until then it is renewed; the
    permits of a worker that was killed are released after `lease` seconds (0.05…86,400).
    """

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            name: str,
            limit: int,
            per: str | Sequence[str] = (),
            paths: str | Sequence[str] = (),
            lease: float = 60.0,
            hold: Literal["response", "background"] = "response",
            plans: Mapping[str, int | str | None] = ...,
            **options: Unpack[PolicyOptions],
        ) -> None: ...

    kind: ClassVar[Kind] = "concurrency"
    limit: Annotated[PositiveInt, Field(le=MAX_CONCURRENCY)]
    schedule: Annotated[tuple[PermitHours, ...], AsHours] = ()
    plans: Mapping[str, Annotated[PlanCount, AfterValidator(_check_permits)]] = Field(default_factory=dict)
    lease: Annotated[float, Field(ge=0.05, le=MAX_LEASE_SECONDS, allow_inf_nan=False)] = 60.0
    hold: Literal["response", "background"] = "response"

    @field_validator("cost", "refund_on")
    @classmethod
    def _check_not_set(cls, value: Any, info: ValidationInfo) -> Any:
        if value not in (1, ()):
            name = info.field_name
            raise invalid(f"a request holds one permit until it ends: {name} cannot be set for a Concurrency [RL116]")
        return value

    @field_validator("lease", mode="before")
    @classmethod
    def _check_lease(cls, value: Any) -> Any:
        return not_bool(value)
