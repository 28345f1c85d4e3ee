"""How the fields of policies are read: texts, rates, methods, paths, and clear words for what is none."""

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WrapValidator

from ratelimit.rate import MAX_LIMIT, Rate

UNLIMITED: Final = "unlimited"
"""How a plan without a limit is written where there is no null, as in TOML."""

_METHOD: Final = re.compile(r"[A-Z]+(?:-[A-Z]+)*")
PRINTABLE: Final = r"^[!-~]([ -~]*[!-~])?$"


def as_sequence(value: Any) -> Any:
    """Let one text stand for a list of one, as in `per="token"`."""
    return [value] if isinstance(value, (str, int)) else value


def as_rate(value: Any) -> Any:
    """Return the rate that a text, or a mapping of its two numbers, names."""
    if isinstance(value, str):
        return Rate.parse(value)
    if isinstance(value, Mapping) and set(value) == {"limit", "period"}:
        return Rate(**value)
    if not isinstance(value, Rate):
        raise ValueError(f"{value!r} is not a rate: write it like '600/minute'")
    return value


def nonzero(rate: Rate) -> Rate:
    """Return the rate, or raise `ValueError` for one that refuses everybody."""
    if rate.limit == 0:
        raise ValueError("a rate of zero refuses everybody; give a plan or a caller '0/…' to block only them")
    return rate


def _plan_rate(value: Any) -> Any:
    return None if value is None or value == UNLIMITED else as_rate(value)


def _plan_amount(value: Any) -> Any:
    return None if value is None or value == UNLIMITED else whole_number(value)


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


def _unique(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise ValueError(f"names one twice: {', '.join(map(str, values))}")
    return values


def whole_number(value: Any) -> Any:
    """Return what may be a number, or raise `ValueError` for true and false, which pydantic takes for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


def share_of(amount: int, share: float) -> int:
    """Return the units that a share of an amount comes to, rounded down, of the decimal as it was written."""
    # The shortest decimal of the float is what was written: 0.29 of 100 is 29, although 0.29 * 100 < 29.
    return int(amount * Fraction(repr(share)))


OneOrMore = BeforeValidator(as_sequence, json_schema_input_type=str | list[str])
Text = Annotated[str, Field(pattern=PRINTABLE, max_length=100)]
Dimensions = Annotated[tuple[Text, ...], OneOrMore, AfterValidator(_unique)]
Methods = Annotated[tuple[str, ...], OneOrMore, AfterValidator(_methods)]
Paths = Annotated[tuple[str, ...], OneOrMore, AfterValidator(_paths)]
Amount = Annotated[int, Field(ge=1, le=MAX_LIMIT), BeforeValidator(whole_number)]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False), BeforeValidator(whole_number)]
Burst = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), BeforeValidator(whole_number)]
Status = Annotated[int, Field(ge=100, le=599)]
Statuses = Annotated[
    tuple[Status, ...], BeforeValidator(as_sequence, json_schema_input_type=int | list[int]), AfterValidator(_unique)
]
AnyRate = Annotated[Rate, BeforeValidator(as_rate, json_schema_input_type=str), PlainSerializer(str, return_type=str)]
PlanRate = Annotated[
    Rate | None,
    BeforeValidator(_plan_rate, json_schema_input_type=str | None),
    PlainSerializer(lambda rate: UNLIMITED if rate is None else str(rate), return_type=str),
]
PlanAmount = Annotated[
    Annotated[int, Field(ge=0, le=MAX_LIMIT)] | None,
    BeforeValidator(_plan_amount, json_schema_input_type=int | str | None),
    PlainSerializer(lambda amount: UNLIMITED if amount is None else amount),
]


CostOf = Callable[[Any], int | Awaitable[int]]
"""Tells what a request (`starlette.requests.Request`, or `HTTPConnection` for a WebSocket) costs; may be async."""


def _cost(value: Any, check: Callable[[Any], Any]) -> Any:
    """Return a function that takes the request, or what `check` finds to be a number."""
    if not callable(value):
        return check(value)
    try:
        inspect.signature(value).bind(None)
    except (TypeError, ValueError):
        raise ValueError("must be a number, or a function that takes the request and nothing else") from None
    if isinstance(value, type):
        raise ValueError(f"must be a number or a function, not the class {value.__name__}")
    return value


if TYPE_CHECKING:
    Cost = int | CostOf
else:
    Cost = Annotated[
        Amount,
        WrapValidator(_cost),
        PlainSerializer(lambda cost: cost),
    ]


class Checked(BaseModel):
    """A frozen model that knows no other fields, and whose copies are checked like new ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:  # noqa: ARG002
        """Return this with some fields changed; a wrong one raises `pydantic.ValidationError`."""
        kept = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self).model_validate({**kept, **(update or {})})
