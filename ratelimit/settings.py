"""What an app declares: its limits, where they are counted, and how answers look."""

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from ipaddress import ip_network
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ratelimit.errors import ConfigurationError
from ratelimit.fields import Checked, OneOrMore, check_path
from ratelimit.policy import BUILT_IN_DIMENSIONS, Concurrency, Limit, Policy, Quota
from ratelimit.style import PathPattern, PathResponse, ResponseStyle

STORE_SCHEMES: Final = ("memory", "redis", "rediss", "unix", "redis+cluster", "redis+sentinel")

_ENTRY: Final = re.compile(r"(?:([A-Za-z]+(?:-[A-Za-z]+)*) )?(\S+)")


def split_entry(entry: str) -> tuple[str | None, str]:
    """Split an `exempt` entry, `"GET /healthz"` or `"/healthz"`, into its method (`None`: any) and its path."""
    match = _ENTRY.fullmatch(entry)
    if match is None:
        raise ValueError(f"{entry!r} is not an endpoint: write it like 'GET /healthz' or '/internal/*'")
    method, path = match.groups()
    method = method.upper() if method else None
    return ("GET" if method == "HEAD" else method), check_path(path)


def _exempt(entries: Sequence[str]) -> tuple[str, ...]:
    for entry in entries:
        split_entry(entry)
    return tuple(entries)


def _proxies(values: Sequence[str]) -> tuple[str, ...]:
    for value in values:
        ip_network(value)
    return tuple(values)


def _distinct(values: Sequence[str]) -> tuple[str, ...]:
    for value in values:
        if value in BUILT_IN_DIMENSIONS:
            raise ValueError(f"{value!r} is built in and needs no declaration")
        if values.count(value) > 1:
            raise ValueError(f"{value!r} is declared twice")
    return tuple(values)


def _check_address(value: str) -> None:
    """Raise `ValueError` where a port or the number of a database is none."""
    try:
        parts = urlsplit(value)
    except ValueError:  # Its message may repeat login and host.
        raise ValueError("the host is none") from None
    try:
        for server in parts.netloc.rpartition("@")[2].split(","):
            _ = urlsplit(f"//{server}").port
    except ValueError:
        raise ValueError("the port is not a number between 0 and 65535") from None
    database = parts.path.strip("/")
    if parts.scheme in ("redis", "rediss") and not re.fullmatch(r"[0-9]*", database):
        raise ValueError("what follows the last '/' must be the number of a database")


if TYPE_CHECKING:
    # What type checkers are to accept; the validators turn it into what stands below.
    StyledPaths = PathResponse | tuple[Sequence[str], ResponseStyle]
    Secret = SecretStr | str
else:
    StyledPaths = PathResponse
    Secret = SecretStr


class _Hidden(str):
    """A text that may be or hold a secret: not shown by `repr`, and so by no error."""

    __slots__ = ()

    def __repr__(self) -> str:
        scheme = self.partition("://")[0]
        return f"'{scheme}://…'" if scheme in STORE_SCHEMES else "'…'"


class _Opaque:
    """Stands for a value of a wrong type that may hold a secret."""

    def __repr__(self) -> str:
        return "…"


def _hidden(value: Any) -> Any:
    if isinstance(value, str):
        return _Hidden(value)
    return value if value is None or isinstance(value, SecretStr) else _Opaque()


def _not_masked(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().strip("*"):
        raise ValueError("is a mask, as pydantic writes secrets out, and not the key itself")
    return value


class RateLimitSettings(Checked):
    """Hold all that an app declares; nests in the app's own pydantic settings and loads from TOML.

    `store` is an address (`memory://`, `redis://…`), `store_timeout` the seconds that a call to it may take. `limits`,
    `quotas` and `concurrency` are the policies. `dimensions` declares names that `per` may use beside the built-in ones. `exempt` lists endpoints
    that are never counted (`"GET /healthz"`). `response` is the style of answers, `responses` that of single paths,
    first match. `trusted_proxies` are the networks (CIDR) whose `X-Forwarded-For` the default `identify` believes.
    `hash_key` keys the hash of tokens; `key_prefix` begins every key in the store. A wrong value raises
    `pydantic.ValidationError` here, with the field's path.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    store: str = Field(default="memory://", repr=False)
    store_timeout: Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)] = 0.1
    dimensions: Annotated[
        Sequence[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]],
        OneOrMore,
        AfterValidator(_distinct),
    ] = ()
    limits: Annotated[Sequence[Limit], AfterValidator(tuple)] = ()
    quotas: Annotated[Sequence[Quota], AfterValidator(tuple)] = ()
    concurrency: Annotated[Sequence[Concurrency], AfterValidator(tuple)] = ()
    exempt: Annotated[Sequence[str], OneOrMore, AfterValidator(_exempt)] = ()
    response: ResponseStyle = ResponseStyle()
    responses: Annotated[Sequence[StyledPaths], AfterValidator(tuple)] = ()
    trusted_proxies: Annotated[Sequence[str], OneOrMore, AfterValidator(_proxies)] = ()
    hash_key: Annotated[Secret, Field(min_length=1), AfterValidator(_not_masked)] | None = None
    key_prefix: Annotated[str, Field(pattern=r"^[!-~]+$", max_length=50)] = "rl"

    @field_validator("store")
    @classmethod
    def _known_store(cls, value: str) -> str:
        scheme, separator, _ = value.partition("://")
        if not separator or scheme not in STORE_SCHEMES:
            # The address itself may hold a password and is not repeated.
            raise ValueError(f"must begin with one of {', '.join(f'{s}://' for s in STORE_SCHEMES)}")
        _check_address(value)
        return str(value)

    @model_validator(mode="before")
    @classmethod
    def _hide_secrets(cls, data: Any) -> Any:
        # An error shows the input that it is about, here or in the settings that these are nested in; and what stands
        # under a misspelled name may be a secret as well.
        if isinstance(data, cls):
            return data
        if not isinstance(data, Mapping):
            return _Opaque()
        shown = cls.model_fields.keys() - {"store", "hash_key"}
        return {name: value if name in shown else _hidden(value) for name, value in data.items()}

    @field_validator("limits", "quotas", "concurrency", mode="before")
    @classmethod
    def _check_shape(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, Mapping):
            raise ValueError(f"is one table, not a list of them: write [[{info.field_name}]]")
        return value

    @field_validator("limits", "quotas", "concurrency")
    @classmethod
    def _check_policies(cls, policies: Sequence[Policy], info: ValidationInfo) -> Sequence[Policy]:
        # Earlier sections are known here and have been found good.
        earlier = [pair for section in _SECTIONS for pair in _placed(section, info.data.get(section, ()))]
        placed = [*earlier, *_placed(str(info.field_name), policies)]
        if problems := list(policy_problems(placed, info.data.get("dimensions", ()))):
            raise ValueError("; ".join(problems))
        return policies

    @cached_property
    def policies(self) -> tuple[Policy, ...]:
        """All policies, in the order in which they are charged and speak."""
        return (*self.limits, *self.quotas, *self.concurrency)

    def placed_policies(self) -> list[tuple[str, Policy]]:
        """Return all policies, each with where it stands, as the beginning of a message."""
        return [pair for section in _SECTIONS for pair in _placed(section, getattr(self, section))]

    def secret(self) -> str | None:
        """Return the key of the hash, in clear."""
        key = self.hash_key
        return key.get_secret_value() if isinstance(key, SecretStr) else key

    def style_for(self, fits: Callable[[PathPattern], bool]) -> ResponseStyle:
        """Return the style of the first entry of `responses` with a path that fits, else `response`."""
        for response in self.path_responses:
            if any(fits(pattern) for pattern in response.patterns):
                return response.style
        return self.response

    @property
    def path_responses(self) -> Sequence[PathResponse]:
        """The entries of `responses`, whichever way they were written."""
        return [response for response in self.responses if isinstance(response, PathResponse)]

    @classmethod
    def from_file(cls, path: str | PathLike[str], **overrides: Any) -> Self:
        """Load settings from a TOML file: the whole of it, or its table `ratelimit` where there is one.

        `overrides` are fields that win over the file's, such as `store=os.environ["STORE"]`.

        A file that cannot be read or is no TOML raises `ConfigurationError` with its name and the line; a wrong value
        raises `pydantic.ValidationError` with the field's path.
        """
        try:
            data = tomllib.loads(Path(path).read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigurationError(f"{path}: {error}") from error
        table = data.get("ratelimit", data)
        if not isinstance(table, dict):
            raise ConfigurationError(f"{path}: ratelimit must be a table")
        return cls.model_validate({**table, **overrides})


_SECTIONS: Final = ("limits", "quotas", "concurrency")


def _placed(section: str, policies: Iterable[Policy]) -> list[tuple[str, Policy]]:
    return [(f"{section}.{i}.", policy) for i, policy in enumerate(policies)]


def policy_problems(policies: Iterable[tuple[str, Policy]], dimensions: Iterable[str]) -> Iterable[str]:
    """Yield what is wrong with policies taken together: names given twice, dimensions that nobody declared.

    Each policy comes with where it stands, as the beginning of a message.
    """
    known, seen = {*BUILT_IN_DIMENSIONS, *dimensions}, dict[str, str]()
    for where, policy in policies:
        first = seen.setdefault(policy.name, where)
        if first != where:
            yield f"{where}name: {policy.name!r} is already the name of {first.rstrip('.: ')}"
        for dimension in policy.per:
            if dimension not in known:
                options = ", ".join(sorted(known))
                yield f"{where}per: {dimension!r} is not one of {options}; declare it in dimensions"
