"""Settings: any input is valid, or is refused by an error of ours without a secret."""

import datetime as dt
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ratelimit import ConfigurationError, Identity, Limiter, RateLimitSettings
from ratelimit.resolver.resolver import PolicyResolver
from tests.fuzz.inputs import PRINTABLE, fuzz, hostile, patient, secrets

pytestmark = patient

_DANGEROUS = ("exec", "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect")
_seen: list[str] | None = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _seen is not None:
        if event in _DANGEROUS or event.startswith("socket.getaddr"):
            _seen.append(f"{event} {arguments!r:.80}")
        elif event == "open" and "zoneinfo" not in str(arguments[0]) and "tzdata" not in str(arguments[0]):
            _seen.append(f"open {arguments[0]!r}")


sys.addaudithook(_hook)


@contextmanager
def nothing_else_done() -> Iterator[None]:
    """Fail if something is executed, connected to, or read other than a time zone."""
    global _seen  # noqa: PLW0603 - an audit hook can never be taken away again
    _seen = []
    try:
        yield
        assert not [each for each in _seen if "tzdata" not in each]
    finally:
        _seen = None


numbers = st.one_of(st.integers(-2, 200), st.integers(), st.floats(), st.booleans(), st.none())
texts = st.one_of(
    hostile,
    st.sampled_from(
        [
            *("1/minute", "5/10 minutes", "0/minute", "token", "org", "ip", "endpoint", "team", "GET", "HEAD", "get"),
            *("/x", "/v1/*", "GET /x", "memory://", "redis://h", "10.0.0.0/8", "::1", "unlimited", "day", "deny"),
            *("22:00", "24:00", "mon", "UTC", "Europe/Berlin", "../../etc/passwd", "/etc/passwd", "__import__('os')"),
            *("ietf", "x-ratelimit", "legacy", "${HOME}", "$(id)", "{{7*7}}", "file:///etc/passwd", "!!python/object"),
        ]
    ),
)
times = st.one_of(st.times(), st.datetimes(), st.dates(), st.timedeltas())
FIELDS: dict[str, list[str]] = {
    "": [*RateLimitSettings.model_fields, "stroe", "limit", "ratelimit", "__class__", "model_config"],
    "limits": [
        *("name", "rate", "per", "burst", "plans", "unit", "prefetch", "methods", "paths", "cost", "scope", "shares"),
        *("schedule", "shadow", "on_store_failure", "refund_on", "code", "detail", "nmae"),
    ],
    "quotas": ["name", "limit", "period", "per", "status", "plans", "unit", "cost", "schedule", "refund_on", "scope"],
    "concurrency": ["name", "limit", "lease", "hold", "per", "plans", "cost", "schedule"],
    "schedule": ["start", "end", "tz", "days", "rate", "limit"],
    "response": ["headers", "scope_header", "retry_after", "problem", "media_type", "problem_base", "titles", "x"],
    "responses": ["paths", "style"],
}
leaves = st.one_of(texts, numbers, times, st.binary(max_size=5), st.lists(texts, max_size=3))
trees = st.recursive(leaves, lambda deeper: st.one_of(st.lists(deeper, max_size=3), st.dictionaries(texts, deeper)))


def tables(section: str) -> st.SearchStrategy[Any]:
    """Return tables with the right field names, some of whose values are valid."""
    fields = {name: _field(name) for name in FIELDS[section]}
    required = {name: fields.pop(name) for name in ("name", "rate", "limit", "start", "end") if name in fields}
    whole = st.fixed_dictionaries(required, optional=fields)
    return st.one_of(st.builds(_some, whole, st.integers(0, 2**30)), trees)


def _some(table: dict[str, Any], mask: int) -> dict[str, Any]:
    return {name: value for n, (name, value) in enumerate(table.items()) if n < 2 or mask >> n % 30 & 3 == 3}


_GOOD: dict[str, st.SearchStrategy[Any]] = {
    "name": st.text(alphabet=PRINTABLE, min_size=1, max_size=20),
    "rate": st.builds("{}/{}s".format, st.integers(0, 100), st.integers(1, 100)),
    "limit": st.integers(1, 1000),
    "per": st.lists(st.sampled_from(["token", "org", "ip", "plan", "endpoint", "method"]), max_size=3, unique=True),
    "start": st.sampled_from(["00:00", "22:00", "23:59"]),
    "end": st.sampled_from(["06:00", "24:00"]),
    "tz": st.sampled_from(["UTC", "Europe/Berlin", "a/../b", "Europe", "\0", "x" * 5000]),
    "titles": st.dictionaries(texts, texts, max_size=2),
    "plans": st.dictionaries(texts, st.one_of(texts, numbers), max_size=2),
    "shares": st.dictionaries(texts, st.floats(0, 1), max_size=2),
    "detail": st.text(min_size=1, max_size=50),
    "scope": st.text(alphabet=PRINTABLE, max_size=20),
}


def _field(name: str) -> st.SearchStrategy[Any]:
    nested = [tables_of(name), st.lists(tables_of(name), max_size=2)] if name in FIELDS else []
    good = [_GOOD[name]] * 4 if name in _GOOD else []
    return st.one_of(*good, *nested, leaves)


def tables_of(section: str) -> st.SearchStrategy[Any]:
    return st.deferred(lambda: tables(section))


documents = tables("")


@fuzz
@given(data=documents)
def test_any_data_is_valid_or_refused(data: Any) -> None:
    """Only `pydantic.ValidationError` is raised, valid settings can be compiled, and nothing is executed or opened."""
    with nothing_else_done():
        try:
            settings = RateLimitSettings.model_validate(data)
        except ValidationError as error:
            assert str(error)
            return
        resolver = PolicyResolver(settings)
        policies = resolver.policies_at(resolver.endpoint("GET", "/x"))
        for charge in policies.charges(Identity(token="t", org="o", ip="::1", plan="free"), now=1_700_000_000_000_000):
            assert charge.key.isascii()


@fuzz
@given(policy=st.sampled_from(["limits", "quotas", "concurrency"]).flatmap(lambda s: st.tuples(st.just(s), tables(s))))
def test_any_policy_is_valid_or_refused(policy: tuple[str, Any]) -> None:
    """The same holds for a single policy, which reaches more values of its fields."""
    section, table = policy
    try:
        settings = RateLimitSettings.model_validate({section: [table]})
    except ValidationError as error:
        assert str(error)
        return
    (made,) = settings.policies
    for text in (made.name, made.scope, getattr(made, "unit", "")):
        assert text.isascii()
        assert not text or text.isprintable()
    assert RateLimitSettings.model_validate(settings.model_dump()) == settings


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(name))} = {_toml(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, (dt.date, dt.time, float)):
        return str(value)
    if isinstance(value, (str, bool, int)):
        return json.dumps(value)
    return '"?"'


_NOISE = st.sampled_from(
    ["", "[ratelimit]", "[[limits]]", "[limits]", "\0", "x = ", "'''", "a.b.c = 1", "ratelimit = 1", "\ufeff", "[["]
)


@fuzz
@given(
    data=st.dictionaries(st.sampled_from(FIELDS[""]), st.one_of(leaves, trees), max_size=4),
    noise=_NOISE,
    raw=st.binary(),
)
def test_any_file_is_valid_or_refused(data: dict[str, Any], noise: str, raw: bytes, tmp_path: Path) -> None:
    """Any bytes raise `ConfigurationError` with the file's name or `ValidationError`, or are valid."""
    path = tmp_path / "limits.toml"
    text = "\n".join([*(f"{name} = {_toml(value)}" for name, value in data.items()), noise])
    for content in (text.encode("utf-8", "replace"), raw):
        path.write_bytes(content)
        try:
            RateLimitSettings.from_file(path)
        except ValidationError as error:
            assert str(error)
        except ConfigurationError as error:
            assert "limits.toml" in str(error)


@pytest.mark.parametrize("text", ["store_timeout = " + "1" * 5000, "limits = " + "[" * 5000], ids=["digits", "depth"])
def test_a_file_that_tomllib_cannot_read_is_refused(text: str, tmp_path: Path) -> None:
    """A number too long for Python, or lists too deep for it, raise an error of ours too."""
    path = tmp_path / "limits.toml"
    path.write_text(text)
    with pytest.raises((ConfigurationError, ValidationError)):
        RateLimitSettings.from_file(path)


_ADDRESSES = st.sampled_from(
    [
        *("redis://user:{}@host", "redsi://user:{}@host", "redis://:{}@host:port", "redis://:{}@host/zero"),
        *("redis+cluster://u:{}@a,b:x", "redis+sentinel://u:{}@a:99999/m", "redis://:{}@[::1", "redis://:{}@h:1/2/3"),
        *("unix://u:{}@/x.sock?db=x", "redis://h/0?password={}", "rediss://u:{}@h:70000"),
    ]
)


def _shown(make: Callable[[], object]) -> str:
    """Return the texts of an object, or those of the error that making it raised."""
    try:
        made = make()
    except (ValidationError, ConfigurationError) as error:
        return f"{error} {error!r}"
    return f"{made} {made!r}"


@fuzz
@given(secret=secrets, address=_ADDRESSES, wrong=st.booleans())
def test_a_store_url_is_never_repeated(secret: str, address: str, *, wrong: bool) -> None:
    """Neither errors nor reprs show the store's password, whatever else is wrong."""
    data: dict[str, Any] = {"store": address.format(secret)}
    if wrong:
        data |= {"store_timeout": "x", "limits": [{"name": "a"}], "unknown": 1}
    assert secret not in _shown(lambda: RateLimitSettings.model_validate(data))
    assert secret not in _shown(lambda: RateLimitSettings.model_validate_json(json.dumps(data)))
    assert secret not in _shown(lambda: Limiter(RateLimitSettings.model_validate(data)))


@fuzz
@given(secret=secrets, wrong=st.booleans())
def test_a_hash_key_is_never_repeated(secret: str, *, wrong: bool) -> None:
    """Neither errors nor reprs show it, whatever else is wrong."""
    data: dict[str, Any] = {"hash_key": secret}
    if wrong:
        data |= {"store": "x", "limits": [{"name": "a"}], "unknown": 1, "key_prefix": ""}
    assert secret not in _shown(lambda: RateLimitSettings.model_validate(data))


@pytest.mark.parametrize(
    "data",
    [
        {"store": "redis://user:hunter2@ho\u2100st"},
        {"store": "redis:/user:hunter2@host"},
        {"stroe": "redis://user:hunter2@host"},
        {"store": b"redsi://user:hunter2@host"},
        {"store": ["redis://user:hunter2@host"]},
        {"hashkey": "hunter2"},
        {"hash_key": ["hunter2"]},
        {"hash_key": b"hunter2\xff"},
        [("hash_key", "hunter2")],
    ],
    ids=["nfkc", "one-slash", "misspelled-store", "bytes", "list", "misspelled-key", "key-list", "key-bytes", "pairs"],
)
def test_a_secret_of_the_wrong_shape_is_not_repeated(data: Any) -> None:
    """For a typo in the field's name, a list, bytes or an odd host, the error names the field and not the secret."""
    with pytest.raises(ValidationError) as error:
        RateLimitSettings.model_validate(data)
    assert "hunter2" not in str(error.value) + repr(error.value)


def test_a_secret_in_broken_json_is_not_repeated() -> None:
    """The error for a comma too many in `RATELIMIT='{…}'` shows no password."""
    with pytest.raises(ValidationError) as error:
        RateLimitSettings.model_validate_json('{"store": "redis://:hunter2@h",')
    assert "hunter2" not in str(error.value)


def test_a_hash_key_that_is_not_utf8_works_or_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """`os.environ` decodes stray bytes to surrogates: the settings refuse them, or the limiter works with them."""
    monkeypatch.setitem(os.environb, b"KEY", b"\xff\xfe binary")
    try:
        settings = RateLimitSettings(hash_key=os.environ["KEY"])
    except ValidationError:
        return
    Limiter(settings)


_FREE = st.one_of(hostile, st.text(alphabet=PRINTABLE + " \r\n\0\x7fé", min_size=1, max_size=20))


@fuzz
@given(field=st.sampled_from(["name", "scope", "unit", "code", "per"]), text=_FREE)
def test_texts_that_reach_headers_are_printable_or_refused(field: str, text: str) -> None:
    """No name, scope, unit, code or dimension has a line end, a control character or other than ASCII."""
    table = {"name": "a", "rate": "1/minute", field: text}
    try:
        (made,) = RateLimitSettings.model_validate({"limits": [table], "dimensions": []}).limits
    except ValidationError:
        return
    for word in (made.name, made.scope, made.unit, made.code or "", *made.per):
        assert all(" " <= char <= "~" for char in word)
        assert len(word) <= 100
