"""The settings of an app: its limits, where they are counted, and how responses look."""

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from ipaddress import ip_network
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ratelimit.config.dimension_sources import DimensionSource, Source, named_sources
from ratelimit.config.fields import AsList, FrozenModel, check_path, invalid, not_bool
from ratelimit.config.path_pattern import PathPattern
from ratelimit.config.policies import BUILT_IN_DIMENSIONS, Concurrency, Limit, Policy, Quota
from ratelimit.config.redaction import RedactedValue, redact
from ratelimit.config.response_style import PathStyle, ResponseStyle
from ratelimit.config.settings_file import SettingsFile, signature_of
from ratelimit.errors import ConfigurationError
from ratelimit.model.store_url import check_store_url

_EXEMPT_ENTRY: Final = re.compile(r"(?:([A-Za-z]+(?:-[A-Za-z]+)*) )?(\S+)")
_DIMENSION: Final = r"^[a-z][a-z0-9_]*$"
_KEY_PREFIX: Final = r"^[!-~]+$"
_MAX_BODY_BYTES: Final = 100_000_000
_MAX_KEPT_S: Final = 10 * 366 * 86_400
_HASH_SLOTS: Final = 16_384
_SECTIONS: Final = ("limits", "quotas", "concurrency")


def split_entry(entry: str) -> tuple[str | None, str]:
    """Split an `exempt` entry, `"GET /healthz"` or `"/healthz"`, into its method (`None`: any) and its path."""
    match = _EXEMPT_ENTRY.fullmatch(entry)
    if match is None:
        raise invalid(f"{entry!r} is not an endpoint: write it like 'GET /healthz' or '/internal/*' [RL113]")
    method, path = match.groups()
    method = method.upper() if method else None
    return ("GET" if method == "HEAD" else method), check_path(path)


def _check_exempt(entries: Sequence[str]) -> tuple[str, ...]:
    for entry in entries:
        split_entry(entry)
    return tuple(entries)


def _check_networks(values: Sequence[str]) -> tuple[str, ...]:
    for value in values:
        try:
            value == "unix" or ip_network(value)
        except ValueError as error:
            raise invalid(str(error)) from None
    return tuple(values)


def _check_dimensions(values: Mapping[str, Any]) -> Mapping[str, Any]:
    for value in values:
        if value in BUILT_IN_DIMENSIONS:
            raise invalid(f"{value!r} is built in and needs no declaration [RL111]")
    return values


def _check_store(value: str) -> str:
    try:
        check_store_url(value)
    except ConfigurationError as error:
        raise invalid(str(error)) from None
    return str(value)


def _check_hash_key(value: SecretStr) -> SecretStr:
    key = value.get_secret_value()
    if not key:
        raise invalid("is empty: leave it out to hash without a key [RL119]")
    if not key.strip("*"):
        raise invalid("is the mask that pydantic prints for a secret, and not the key itself [RL119]")
    return value


def _check_key_prefix(value: str) -> str:
    if not re.fullmatch(_KEY_PREFIX, value):
        raise invalid("must be printable ASCII, not empty, and without blanks [RL114]")
    return value


def _check_dimension(value: str) -> str:
    if not re.fullmatch(_DIMENSION, value):
        raise invalid(f"{value!r:.100} must begin with a-z and have no other characters than a-z 0-9 _ [RL111]")
    return value


if TYPE_CHECKING:
    # Type checkers accept these; the validators convert them to the types below.
    StyledPaths = PathStyle | tuple[Sequence[str], ResponseStyle]
    Secret = SecretStr | str
    Dimensions = Mapping[str, Source] | Sequence[str]
else:
    StyledPaths = PathStyle
    Secret = SecretStr
    Dimension = Annotated[str, Field(json_schema_extra={"pattern": _DIMENSION}), AfterValidator(_check_dimension)]
    Dimensions = Annotated[
        Mapping[Dimension, Source],
        BeforeValidator(named_sources, json_schema_input_type=str | list[str] | dict[Dimension, Source]),
        AfterValidator(_check_dimensions),
    ]


class StatisticsSettings(FrozenModel):
    """Seconds for which counts of minutes (25 hours) and hours (90 days) are kept, and whether addresses are masked there."""

    minutes_kept: Annotated[int, Field(ge=60, le=_MAX_KEPT_S), BeforeValidator(not_bool)] = 90_000
    hours_kept: Annotated[int, Field(ge=3600, le=_MAX_KEPT_S), BeforeValidator(not_bool)] = 7_776_000
    mask_addresses: bool = True


def _as_statistics(value: Any) -> Any:
    return {True: StatisticsSettings(), False: None}.get(value, value) if isinstance(value, bool) else value


if TYPE_CHECKING:
    Statistics = StatisticsSettings | bool
else:
    Statistics = StatisticsSettings


class RateLimitSettings(FrozenModel):
    """All that an app declares; nests in the app's own pydantic settings and loads from TOML.

    `store` is a URL (`memory://`, `redis://…`), `store_timeout` the seconds that a call to it may take, `max_keys` the counters of `memory://`. `limits`,
    `quotas` and `concurrency` are the policies. `dimensions` declares names that `per` may use beside the built-in ones: a
    list of names, whose values `identify` tells, or a mapping from names to sources: `"path:tenant"`, `"header:x-region"`,
    `"query:plan"`, `"cookie:sid"`, `"json:user.email"` (a member of the body, read up to `max_body` bytes), or a function of
    the request. What `identify` tells wins. The values of `hashed_dimensions` are hashed as tokens are.
    `exempt` lists endpoints that are never counted (`"GET /healthz"`). `response` is the style of responses, `responses`
    the style of single paths, first match. `trusted_proxies` are the networks (CIDR) whose `X-Forwarded-For` the default
    `identify` believes, and `"unix"` for Unix sockets. `statistics` (`True`, or how long they are kept) counts
    for all workers, minute by minute, what each policy decides. `hash_key` keys the hash of tokens; `key_prefix` begins every key in the store.
    `partitions` puts all counters into at most so many hash slots of a Redis Cluster, so that more requests
    travel together; by default each organization has its own. With another number, counters that move
    begin at zero. A wrong value raises `pydantic.ValidationError` here, with the field's path.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    store: Annotated[str, AfterValidator(_check_store)] = Field(default="memory://", repr=False)
    store_timeout: Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)] = 0.1
    max_keys: Annotated[int, Field(ge=1, le=10**9), BeforeValidator(not_bool)] = 100_000
    dimensions: Dimensions = Field(default_factory=dict)
    hashed_dimensions: Annotated[Sequence[str], AsList, AfterValidator(tuple)] = ()
    max_body: Annotated[int, Field(ge=0, le=_MAX_BODY_BYTES), BeforeValidator(not_bool)] = 65_536
    limits: Annotated[Sequence[Limit], AfterValidator(tuple)] = ()
    quotas: Annotated[Sequence[Quota], AfterValidator(tuple)] = ()
    concurrency: Annotated[Sequence[Concurrency], AfterValidator(tuple)] = ()
    exempt: Annotated[Sequence[str], AsList, AfterValidator(_check_exempt)] = ()
    response: ResponseStyle = ResponseStyle()
    responses: Annotated[Sequence[StyledPaths], AfterValidator(tuple)] = ()
    trusted_proxies: Annotated[Sequence[str], AsList, AfterValidator(_check_networks)] = ()
    statistics: Annotated[Statistics | None, BeforeValidator(_as_statistics)] = None
    hash_key: Annotated[Secret, AfterValidator(_check_hash_key)] | None = None
    key_prefix: Annotated[
        str, Field(max_length=50, json_schema_extra={"pattern": _KEY_PREFIX}), AfterValidator(_check_key_prefix)
    ] = "rl"
    partitions: Annotated[int, Field(ge=1, le=_HASH_SLOTS), BeforeValidator(not_bool)] | None = None

    _file: "SettingsFile[RateLimitSettings] | None" = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _redact_secrets(cls, data: Any) -> Any:
        if isinstance(data, cls):
            return data
        if not isinstance(data, Mapping):
            return RedactedValue()
        return redact(data, cls.model_fields.keys() - {"store", "hash_key"})

    @field_validator("limits", "quotas", "concurrency", mode="before")
    @classmethod
    def _check_shape(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, Mapping):
            raise invalid(f"is one table, not a list of them: write [[{info.field_name}]] [RL121]")
        return value

    @field_validator("limits", "quotas", "concurrency")
    @classmethod
    def _check_policies(cls, policies: Sequence[Policy], info: ValidationInfo) -> Sequence[Policy]:
        # Earlier sections are in `info.data`, and are valid.
        earlier = [pair for section in _SECTIONS for pair in _placed(section, info.data.get(section, ()))]
        placed = [*earlier, *_placed(str(info.field_name), policies)]
        if problems := list(policy_problems(placed, info.data.get("dimensions", ()))):
            raise invalid("; ".join(problems))
        return policies

    @field_validator("hashed_dimensions")
    @classmethod
    def _check_hashed(cls, values: Sequence[str], info: ValidationInfo) -> Sequence[str]:
        known = {*info.data.get("dimensions", ()), "org", "ip"}
        for value in values:
            if value not in known:
                raise invalid(f"{value!r} is not one of {', '.join(sorted(known))} [RL111]")
        return values

    @cached_property
    def policies(self) -> tuple[Policy, ...]:
        """All policies, in the order in which they are charged and reported."""
        return (*self.limits, *self.quotas, *self.concurrency)

    @property
    def dimension_sources(self) -> dict[str, DimensionSource]:
        """The sources of the dimensions that have one."""
        found = self.dimensions if isinstance(self.dimensions, Mapping) else {}
        return {name: source for name, source in found.items() if source is not None}

    def placed_policies(self) -> list[tuple[str, Policy]]:
        """Return all policies, each with its field's path, as the beginning of a message."""
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
    def path_responses(self) -> Sequence[PathStyle]:
        """The entries of `responses`, whichever way they were written."""
        return [response for response in self.responses if isinstance(response, PathStyle)]

    @classmethod
    def from_file(cls, path: str | PathLike[str], *, watch: bool = False, **overrides: Any) -> Self:
        """Load settings from a TOML file: the whole of it, or its table `ratelimit` where there is one.

        With `watch`, a limiter loads the file again within 2 seconds after it has changed; where that fails, the log says why and the
        settings before stay. `overrides` are fields that win over the file's, such as `store=os.environ["STORE"]`. A file that cannot be read,
        or is not TOML, raises `ConfigurationError` with its name and the line; a wrong value raises
        `pydantic.ValidationError` with the field's path.
        """
        seen = signature_of(Path(path)) if watch else None
        try:
            data = tomllib.loads(Path(path).read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigurationError(f"{path}: {error} [RL101]") from error
        table = data.get("ratelimit", data)
        if not isinstance(table, dict):
            raise ConfigurationError(f"{path}: ratelimit must be a table [RL102]")
        settings = cls.model_validate({**table, **overrides})
        if watch:
            settings._file = SettingsFile(Path(path), overrides, partial(cls.from_file, watch=True), seen)  # noqa: SLF001 - of this class
        return settings

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return these settings with some fields changed, which win over a watched file too."""
        copy = super().model_copy(update=update, deep=deep)
        copy._file = None if self._file is None else self._file.with_overrides(update or {})  # noqa: SLF001 - of this class
        return copy

    @property
    def watched_file(self) -> "SettingsFile[RateLimitSettings] | None":
        """The file that these settings were read from, where it is watched."""
        return self._file


def _placed(section: str, policies: Iterable[Policy]) -> list[tuple[str, Policy]]:
    return [(f"{section}.{i}.", policy) for i, policy in enumerate(policies)]


def policy_problems(policies: Iterable[tuple[str, Policy]], dimensions: Iterable[str]) -> Iterable[str]:
    """Yield what is wrong with policies taken together: duplicate names and undeclared dimensions.

    Each policy comes with its field's path, as the beginning of a message.
    """
    known, seen = {*BUILT_IN_DIMENSIONS, *dimensions}, dict[str, str]()
    for where, policy in policies:
        first = seen.setdefault(policy.name, where)
        if first != where:
            yield f"{where}name: {policy.name!r} is already the name of {first.rstrip('.: ')} [RL108]"
        for dimension in policy.per:
            if dimension not in known:
                options = ", ".join(sorted(known))
                yield f"{where}per: {dimension!r} is not one of {options}; declare it in dimensions [RL109]"
        if policy.key is not None and policy.name in known:
            yield f"{where}name: {policy.name!r} is a dimension, and would name the values of key too [RL110]"
