"""Policies: the named rules that settings and decorators declare."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationInfo

from ratelimit.decision import GLOBAL
from ratelimit.rate import MAX_LIMIT, Rate

BUILT_IN_DIMENSIONS: Final = ("token", "org", "ip", "plan", "endpoint", "method")
"""What `per` may name without a declaration in the settings."""

UNLIMITED: Final = "unlimited"
"""How a plan without a limit is written where there is no null, as in TOML."""

FailureMode = Literal["local", "allow", "deny"]

_METHOD: Final = re.compile(r"[A-Z]+(?:-[A-Z]+)*")
_PRINTABLE: Final = r"^[!-~]([ -~]*[!-~])?$"


def as_sequence(value: Any) -> Any:
    """Let one text stand for a list of one, as in `per="token"`."""
    return [value] if isinstance(value, str) else value


def _rate(value: Any) -> Any:
    if isinstance(value, str):
        return Rate.parse(value)
    if isinstance(value, Mapping) and set(value) == {"limit", "period"}:
        return Rate(**value)
    if not isinstance(value, Rate):
        raise ValueError(f"{value!r} is not a rate: write it like '600/minute'")
    return value


def _nonzero(rate: Rate) -> Rate:
    if rate.limit == 0:
        raise ValueError("a rate of zero refuses everybody; give a plan or a caller '0/…' to block only them")
    return rate


def _plan_rate(value: Any) -> Any:
    return None if value is None or value == UNLIMITED else _rate(value)


def _methods(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if not _METHOD.fullmatch(value.upper()):
            raise ValueError(f"{value!r} is not an HTTP method")
    # HEAD is answered and counted as GET.
    return tuple(dict.fromkeys("GET" if value.upper() == "HEAD" else value.upper() for value in values))


def _paths(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        check_path(value)
    return values


def check_path(value: str) -> str:
    """Return the route template or glob, or raise `ValueError` for what no path can equal."""
    if not value.startswith(("/", "*")) or any(c.isspace() or not c.isprintable() for c in value):
        raise ValueError(f"{value!r} is not a route template or glob: it begins with '/' or '*' and has no blanks")
    return value


def _unique(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) < len(values):
        raise ValueError(f"names a dimension twice: {', '.join(values)}")
    return values


def _whole_number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a whole number, not true or false")
    return value


def _scope(value: str, info: ValidationInfo) -> str:
    """Return what was given, or the default, which depends on `per`."""
    if value:
        if not re.fullmatch(_PRINTABLE, value):
            raise ValueError(f"{value!r} is not printable ASCII")
        return value
    per: tuple[str, ...] = info.data.get("per", ())
    if "endpoint" in per:
        return "endpoint"
    return per[0] if per else GLOBAL


Text = Annotated[str, Field(pattern=_PRINTABLE, max_length=100)]
OneOrMore = BeforeValidator(as_sequence, json_schema_input_type=str | list[str])
RateField = Annotated[Rate, BeforeValidator(_rate, json_schema_input_type=str), PlainSerializer(str, return_type=str)]
PlanRate = Annotated[
    Rate | None,
    BeforeValidator(_plan_rate, json_schema_input_type=str | None),
    PlainSerializer(lambda rate: UNLIMITED if rate is None else str(rate), return_type=str),
]


class Checked(BaseModel):
    """A frozen model that knows no other fields, and whose copies are checked like new ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:  # noqa: ARG002
        """Return this with some fields changed; a wrong one raises `pydantic.ValidationError`."""
        kept = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self).model_validate({**kept, **(update or {})})


class Policy(Checked):
    """What all kinds of policies share.

    `name` is printable ASCII and unique in the settings. `per` names the dimensions that each have a counter of their
    own (empty: one counter for everybody); the policy does not apply to an identity that lacks one of them. `methods`
    and `paths` (route templates, or globs in which `*` also crosses `/`) narrow it; empty means all. `cost` is what
    one request takes, in units. `scope` is the label in headers and problems: by default `endpoint` if that is in
    `per`, else the first dimension, else `global`. A `shadow` policy counts and reports but refuses nobody.
    `on_store_failure` says what happens to a request while the store is away. `code` and `detail` speak in the problem
    instead of the defaults. Wrong values raise `pydantic.ValidationError`, which names the field's path.
    """

    name: Text
    per: Annotated[tuple[Text, ...], OneOrMore, AfterValidator(_unique)] = ()
    methods: Annotated[tuple[str, ...], OneOrMore, AfterValidator(_methods)] = ()
    paths: Annotated[tuple[str, ...], OneOrMore, AfterValidator(_paths)] = ()
    cost: Annotated[int, BeforeValidator(_whole_number), Field(ge=1, le=MAX_LIMIT)] = 1
    scope: Annotated[str, Field(max_length=100, validate_default=True), AfterValidator(_scope)] = ""
    shadow: bool = False
    on_store_failure: FailureMode = "local"
    code: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=100)] | None = None
    detail: Annotated[str, Field(min_length=1, max_length=1000)] | None = None


class Limit(Policy):
    """Admit `rate` over a sliding window, plus `burst` times its limit once in a while.

    `rate` is a `Rate` or its text. `burst` is a share 0…1 of the limit: what is used of it in one window is taken off
    the next, so any k consecutive windows admit at most k·L + L·burst. `plans` gives identities with that plan another
    rate; `None` (`"unlimited"` in TOML) means that the limit does not apply to them, `"0/minute"` blocks them.
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
            methods: str | Sequence[str] = (),
            paths: str | Sequence[str] = (),
            cost: int = 1,
            scope: str = "",
            shadow: bool = False,
            on_store_failure: FailureMode = "local",
            code: str | None = None,
            detail: str | None = None,
        ) -> None: ...

    rate: Annotated[RateField, AfterValidator(_nonzero)]
    burst: Annotated[float, BeforeValidator(_whole_number), Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    plans: Mapping[str, PlanRate] = Field(default_factory=dict)
