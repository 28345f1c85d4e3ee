"""Types of fields: how texts, rates, methods and paths are read, and the messages for what is not one."""

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, Final, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WrapValidator
from pydantic_core import PydanticCustomError

from ratelimit.config.path_pattern import EXCEPT
from ratelimit.errors import InvalidRate
from ratelimit.model.rate import MAX_LIMIT, Rate

T = TypeVar("T")

UNLIMITED: Final = "unlimited"
"""How a plan without a limit is written where there is no null, as in TOML."""

_METHOD: Final = re.compile(r"[A-Z]+(?:-[A-Z]+)*")
_PRINTABLE: Final = r"^[!-~]([ -~]*[!-~])?$"


def invalid(message: str) -> PydanticCustomError:
    """Return the `ValueError` that a validator raises: pydantic shows its message as it is."""
    return PydanticCustomError("invalid", "{message}", {"message": message})


def as_sequence(value: Any) -> Any:
    """Let one text or number stand for a list of one, as in `per="token"`."""
    return [value] if isinstance(value, (str, int)) else value


def as_rate(value: Any) -> Any:
    """Return the rate that a text, or a mapping of its two numbers, names."""
    try:
        if isinstance(value, str):
            return Rate.parse(value)
        if isinstance(value, Mapping) and set(value) == {"limit", "period"}:
            return Rate(**value)
    except InvalidRate as error:
        raise invalid(str(error)) from None
    if not isinstance(value, Rate):
        raise invalid(f"{value!r:.100} is not a rate: write it like '600/minute' [RL106]")
    return value


def check_nonzero(rate: Rate) -> Rate:
    """Return the rate, or raise `ValueError` for one that would refuse every request."""
    if rate.limit == 0:
        raise invalid(
            "a rate of zero refuses every request; to block one plan or one caller, use plans or an override [RL107]"
        )
    return rate


def _plan_rate(value: Any) -> Any:
    return None if value is None or value == UNLIMITED else as_rate(value)


def _plan_count(value: Any) -> Any:
    if isinstance(value, str) and value != UNLIMITED:
        raise invalid(f"{value!r:.100} is neither a whole number nor {UNLIMITED!r} [RL105]")
    return None if value is None or value == UNLIMITED else not_bool(value)


def _check_methods(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if not _METHOD.fullmatch(value.upper()):
            raise invalid(f"{value!r} is not an HTTP method; write several methods as a list [RL113]")
    # HEAD is answered and counted as GET.
    return tuple(dict.fromkeys("GET" if value.upper() == "HEAD" else value.upper() for value in values))


def _check_paths(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        check_path(value.removeprefix(EXCEPT))
    return values


def check_path(value: str) -> str:
    """Return the route template or glob, or raise `ValueError` for one that no path can match."""
    if not value.startswith(("/", "*")) or any(c.isspace() or not c.isprintable() for c in value):
        raise invalid(
            f"{value!r} is not a route template or glob: it must begin with '/' or '*' and have no blanks [RL113]"
        )
    return value


def check_unique(values: tuple[T, ...]) -> tuple[T, ...]:
    """Return the values, or raise `ValueError` where one is listed twice."""
    for value in values:
        if values.count(value) > 1:
            raise invalid(f"{value!r} is listed twice [RL112]")
    return values


def check_printable(value: str) -> str:
    """Return the text, or raise `ValueError` where a header could not carry it as it is."""
    if not re.fullmatch(_PRINTABLE, value):
        raise invalid(f"{value!r:.100} must be printable ASCII, not empty, and without blanks at its ends [RL114]")
    return value


def not_bool(value: Any) -> Any:
    """Return the value, or raise `ValueError` for true and false, which pydantic would take for 1 and 0."""
    if isinstance(value, bool):
        raise invalid("must be a number, not true or false [RL105]")
    return value


def share_of(amount: int, share: float) -> int:
    """Return the units that a share of an amount comes to, rounded down, of the decimal as it was written."""
    # The shortest decimal of the float is what was written: 0.29 of 100 is 29, although 0.29 * 100 < 29.
    return int(amount * Fraction(repr(share)))


AsList = BeforeValidator(as_sequence, json_schema_input_type=str | list[str])
Text = Annotated[str, Field(max_length=100, json_schema_extra={"pattern": _PRINTABLE}), AfterValidator(check_printable)]
Dimensions = Annotated[tuple[Text, ...], AsList, AfterValidator(check_unique)]
Methods = Annotated[tuple[str, ...], AsList, AfterValidator(_check_methods)]
Paths = Annotated[tuple[str, ...], AsList, AfterValidator(_check_paths)]
PositiveInt = Annotated[int, Field(ge=1, le=MAX_LIMIT), BeforeValidator(not_bool)]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False), BeforeValidator(not_bool)]
Burst = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), BeforeValidator(not_bool)]
Status = Annotated[int, Field(ge=100, le=599)]
Statuses = Annotated[
    tuple[Status, ...],
    BeforeValidator(as_sequence, json_schema_input_type=int | list[int]),
    AfterValidator(check_unique),
]
RateField = Annotated[Rate, BeforeValidator(as_rate, json_schema_input_type=str), PlainSerializer(str, return_type=str)]
PlanRate = Annotated[
    Rate | None,
    BeforeValidator(_plan_rate, json_schema_input_type=str | None),
    PlainSerializer(lambda rate: UNLIMITED if rate is None else str(rate), return_type=str),
]
PlanCount = Annotated[
    Annotated[int, Field(ge=0, le=MAX_LIMIT)] | None,
    BeforeValidator(_plan_count, json_schema_input_type=int | str | None),
    PlainSerializer(lambda amount: UNLIMITED if amount is None else amount),
]

CostFunction = Callable[[Any], int | Awaitable[int]]
"""Tells what a request (`starlette.requests.Request`, or `HTTPConnection` for a WebSocket) costs; may be async."""


def _check_cost(value: Any, check_number: Callable[[Any], Any]) -> Any:
    """Return a function that takes the request, or a number."""
    return check_request_function(value, "a number, or a function") if callable(value) else check_number(value)


def check_request_function(value: Any, wanted: str = "a function") -> Any:
    """Return a function that takes the request, or raise `ValueError`, which says what is `wanted`."""
    if isinstance(value, type):
        raise invalid(f"must be {wanted}, not the class {value.__name__} [RL115]")
    try:
        inspect.signature(value).bind(None)
    except (TypeError, ValueError):
        raise invalid(f"must be {wanted} that takes the request and nothing else [RL115]") from None
    return value


if TYPE_CHECKING:
    Cost = int | CostFunction
else:
    Cost = Annotated[
        PositiveInt,
        WrapValidator(_check_cost),
        PlainSerializer(lambda cost: cost),
    ]


class FrozenModel(BaseModel):
    """A frozen model that accepts no unknown fields, and whose copies are checked like new ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:  # noqa: ARG002
        """Return this with some fields changed; a wrong one raises `pydantic.ValidationError`."""
        kept = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self).model_validate({**kept, **(update or {})})
