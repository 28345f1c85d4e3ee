"""Settings: wrong values fail at construction, with the field's path."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from ratelimit import ConfigurationError, Limit, Rate, RateLimitSettings, ResponseStyle
from ratelimit.config.settings import split_entry
from ratelimit.model.store_url import SCHEMES
from ratelimit.stores.memory import MemoryStore
from ratelimit.stores.redis.store import RedisStore
from ratelimit.stores.urls import open_store

BAD = sorted(Path(__file__).parent.glob("bad_settings/*.toml"))


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_wrong_settings_name_the_field(path: Path) -> None:
    """Each file has one mistake, and the error names the path of its field."""
    first, _, _ = path.read_text().partition("\n")
    field, _, message = first.removeprefix("# fails: ").partition(": ")
    with pytest.raises(ValidationError) as error:
        RateLimitSettings.from_file(path)
    assert field in str(error.value)
    assert message in str(error.value)
    assert error.value.error_count() == 1


def test_many_mistakes_are_known() -> None:
    """There are files of at least twenty kinds of mistakes."""
    assert len(BAD) >= 20


def test_a_file_that_is_not_toml_names_the_line(tmp_path: Path) -> None:
    """Syntax errors and missing files raise `ConfigurationError` with the file's name."""
    broken = tmp_path / "limits.toml"
    broken.write_text("store = 'memory://'\nlimits = [[\nstore")
    with pytest.raises(ConfigurationError, match=r"limits\.toml: .*line"):
        RateLimitSettings.from_file(broken)
    with pytest.raises(ConfigurationError, match=r"none\.toml: .*No such file"):
        RateLimitSettings.from_file(tmp_path / "none.toml")


def test_a_password_is_never_repeated() -> None:
    """Neither an error nor a repr shows the credentials in the store's URL."""
    with pytest.raises(ValidationError) as error:
        RateLimitSettings(store="reddis://user:hunter2@host")
    assert "hunter2" not in str(error.value)
    assert "hunter2" not in repr(RateLimitSettings(store="redis://user:hunter2@host"))
    assert "hunter2" not in repr(open_store("redis://user:hunter2@host"))
    with pytest.raises(ConfigurationError) as wrong:
        open_store("redis://user:hunter2@host:port/x")
    assert "hunter2" not in str(wrong.value)


def test_a_password_is_not_repeated_by_enclosing_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same holds in an app's own settings, whose configuration decides what their errors show."""

    class AppSettings(BaseSettings):
        model_config = SettingsConfigDict(env_nested_delimiter="__")
        ratelimit: RateLimitSettings = RateLimitSettings()

    monkeypatch.setenv("RATELIMIT__STORE", "redsi://:hunter2@host")
    with pytest.raises(ValidationError, match="ratelimit.store") as error:
        AppSettings()
    assert "hunter2" not in str(error.value)
    monkeypatch.setenv("RATELIMIT__STORE", "redis://:hunter2@host")
    monkeypatch.setenv("RATELIMIT__LIMITS", '[{"name": "a", "rate": "1/minute", "per": ["tennant"]}]')
    with pytest.raises(ValidationError, match="limits.0.per: 'tennant'") as error:
        AppSettings()
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("store", ["redis://host:port/0", "redis://host:99999", "rediss://host/zero", "redis://h/0/1"])
def test_a_store_url_is_checked_as_far_as_possible(store: str) -> None:
    """A wrong port or database fails here, not when the middleware is made."""
    with pytest.raises(ValidationError, match=r"^1 validation error for RateLimitSettings\nstore\n"):
        RateLimitSettings(store=store)


def test_a_copy_is_checked_like_the_original() -> None:
    """`model_copy` keeps the fields that were set, takes valid changes and refuses others."""
    settings = RateLimitSettings(limits=[Limit(name="a", rate="1/minute")], exempt=["GET /x"], store_timeout=2)
    copy = settings.model_copy(update={"store": "redis://h"})
    assert (copy.store, copy.limits, copy.exempt, copy.store_timeout) == ("redis://h", settings.limits, ("GET /x",), 2)
    for wrong in ({"store": "redis//h"}, {"stroe": "redis://h"}, {"limits": [{"name": "b"}]}):
        with pytest.raises(ValidationError):
            settings.model_copy(update=wrong)


def test_copies_of_policies_and_styles_are_checked_too() -> None:
    """A text becomes a rate in a copy as well, or the copy fails."""
    one = Limit(name="a", rate="1/minute", per="token").model_copy(update={"rate": "6/minute"})
    assert (one.rate, one.per, one.scope) == (Rate(6, 60), ("token",), "token")
    with pytest.raises(ValidationError, match="rate"):
        one.model_copy(update={"rate": "bad"})
    with pytest.raises(ValidationError, match="problem"):
        ResponseStyle().model_copy(update={"problem": "html"})


def test_the_json_schema_accepts_what_the_docs_write() -> None:
    """An editor that checks a settings file by the schema accepts texts for rates and for lists of one."""
    fields: Any = RateLimitSettings.model_json_schema()["$defs"]["Limit"]["properties"]
    assert fields["rate"]["type"] == "string"
    assert {"type": "string"} in fields["per"]["anyOf"]
    assert {"type": "string"} in fields["plans"]["additionalProperties"]["anyOf"]


def test_a_table_of_the_wrong_shape_fails(tmp_path: Path) -> None:
    """`ratelimit = 3` is not a table, and `[limits]` is one table instead of a list."""
    path = tmp_path / "app.toml"
    path.write_text("ratelimit = 3\n")
    with pytest.raises(ConfigurationError, match=r"app\.toml: ratelimit must be a table"):
        RateLimitSettings.from_file(path)
    path.write_text('[limits]\nname = "a"\nrate = "1/minute"\n')
    with pytest.raises(ValidationError, match=r"write \[\[limits\]\]"):
        RateLimitSettings.from_file(path)


def test_an_empty_or_masked_hash_key_fails() -> None:
    """An empty key would hash without one, and a mask is the same for every key."""
    for wrong in ("", "**********"):
        with pytest.raises(ValidationError, match="hash_key"):
            RateLimitSettings(hash_key=wrong)
    assert RateLimitSettings(hash_key="k").secret() == "k"
    assert "hunter2" not in repr(RateLimitSettings(hash_key="hunter2"))


def test_settings_nest_in_the_apps_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """`RATELIMIT__STORE` in the environment sets the store of the nested settings."""

    class AppSettings(BaseSettings):
        model_config = SettingsConfigDict(env_nested_delimiter="__")
        debug: bool = False
        ratelimit: RateLimitSettings = RateLimitSettings(limits=[{"name": "a", "rate": "1/minute"}])

    monkeypatch.setenv("RATELIMIT__STORE", "redis://cache/3")
    monkeypatch.setenv("RATELIMIT__LIMITS", '[{"name": "b", "rate": "2/hour", "per": ["token"]}]')
    settings = AppSettings().ratelimit
    assert (settings.store, settings.limits[0].rate) == ("redis://cache/3", Rate(2, 3600))


def test_a_table_of_a_larger_file_is_enough(tmp_path: Path) -> None:
    """The table `[ratelimit]` of an app's own TOML is read; arguments win over the file."""
    path = tmp_path / "app.toml"
    path.write_text('[server]\nport = 1\n[ratelimit]\nstore = "redis://a"\nexempt = "GET /x"\n')
    assert RateLimitSettings.from_file(path).store == "redis://a"
    settings = RateLimitSettings.from_file(path, store="memory://")
    assert (settings.store, settings.exempt) == ("memory://", ("GET /x",))


def test_one_text_stands_for_a_list_of_one() -> None:
    """`per="token"` is `per=["token"]`, and so for methods, paths and headers."""
    one = Limit(name="a", rate="1/minute", per="token", methods="get", paths="/x")
    assert (one.per, one.methods, one.paths) == (("token",), ("GET",), ("/x",))
    assert ResponseStyle(headers="ietf").headers == ("ietf",)


def test_styles_by_path_are_pairs_or_tables() -> None:
    """`responses` takes pairs of paths and style as well as tables."""
    style = ResponseStyle(problem="legacy")
    pairs = RateLimitSettings(responses=[(["/v1/*"], style)])
    tables = RateLimitSettings.model_validate({"responses": [{"paths": "/v1/*", "style": {"problem": "legacy"}}]})
    assert pairs == tables


def test_settings_are_frozen() -> None:
    """What was compiled from settings stays true, because they cannot change."""
    with pytest.raises(ValidationError, match="frozen"):
        RateLimitSettings().store = "redis://x"  # type: ignore[misc]


def test_unlimited_in_toml_is_none() -> None:
    """TOML has no null: with `"unlimited"` the limit does not apply to a plan."""
    one: Any = Limit.model_validate({"name": "a", "rate": "1/minute", "plans": {"free": "unlimited", "b": "0/minute"}})
    assert one.plans == {"free": None, "b": Rate(0, 60)}
    assert one.model_dump()["plans"] == {"free": "unlimited", "b": "0/minute"}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_settings_accept_every_scheme_that_can_be_opened(scheme: str) -> None:
    """The settings and `open_store` share one list of schemes."""
    url = f"{scheme}://" + {"redis+sentinel": "host/name", "redis+cluster": "host"}.get(scheme, "")
    assert isinstance(open_store(RateLimitSettings(store=url).store), MemoryStore if scheme == "memory" else RedisStore)


@pytest.mark.parametrize("url", ["redis+clusters://a", "sentinel://a", "file://x", ""])
def test_other_schemes_are_refused(url: str) -> None:
    """The errors of the settings and of `open_store` list the schemes that there are."""
    with pytest.raises(ValidationError, match="memory://, redis://, rediss://, unix://"):
        RateLimitSettings(store=url)
    with pytest.raises(ConfigurationError, match="memory://, redis://, rediss://, unix://"):
        open_store(url)


def test_a_style_is_chosen_by_the_first_entry_that_matches() -> None:
    """Paths without an entry have the style of `response`."""
    legacy, ietf = ResponseStyle(problem="legacy"), ResponseStyle(headers="ietf")
    settings = RateLimitSettings(responses=[(["/v1/*"], legacy), (["/v1/runs", "/v2/*"], ietf)])
    styles = [
        settings.style_for(lambda pattern, path=path: pattern.matches(path))  # type: ignore[misc]
        for path in ("/v1/runs", "/v2/runs", "/v3/runs")
    ]
    assert styles == [legacy, ietf, settings.response]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("/healthz", (None, "/healthz")),
        ("GET /healthz", ("GET", "/healthz")),
        ("head /healthz", ("GET", "/healthz")),
        ("m-search *", ("M-SEARCH", "*")),
    ],
)
def test_an_exempt_entry_is_a_path_with_or_without_a_method(entry: str, expected: tuple[str | None, str]) -> None:
    """Methods are read in any case, and HEAD is GET."""
    assert split_entry(entry) == expected


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("key_prefix", "a b", "must be printable ASCII, not empty, and without blanks"),
        ("key_prefix", "", "must be printable ASCII, not empty, and without blanks"),
        ("dimensions", ["Team"], "'Team' must begin with a-z"),
        ("dimensions", ["team", "team"], "'team' is listed twice"),
        ("hash_key", "", "is empty: leave it out to hash without a key"),
        ("hash_key", "***", "is the mask that pydantic prints for a secret"),
    ],
)
def test_messages_say_what_a_field_must_be(field: str, value: Any, message: str) -> None:
    """In words, and not as a regular expression."""
    with pytest.raises(ValidationError, match=rf"\n{field}(\.0|\.Team\.\[key\])?\n  {message}"):
        RateLimitSettings.model_validate({field: value})
