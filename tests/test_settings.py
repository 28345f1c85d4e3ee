"""Settings: wrong ones fail at construction, and say where."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from ratelimit import ConfigurationError, Limit, Rate, RateLimitSettings, ResponseStyle
from ratelimit.settings import STORE_SCHEMES
from ratelimit.stores import MemoryStore, RedisStore, open_store
from ratelimit.style import PathPattern

BAD = sorted(Path(__file__).parent.glob("bad_settings/*.toml"))


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_wrong_settings_name_the_field(path: Path) -> None:
    """Each file has one fault, and the error names its path."""
    expected = path.read_text().partition("\n")[0].removeprefix("# fails: ")
    with pytest.raises(ValidationError) as error:
        RateLimitSettings.from_file(path)
    assert expected in str(error.value)
    assert error.value.error_count() == 1


def test_there_are_enough_faults() -> None:
    """At least twenty kinds of mistakes are known."""
    assert len(BAD) >= 20


def test_a_file_that_is_no_toml_names_the_line(tmp_path: Path) -> None:
    """Syntax errors and missing files are errors of ours, with the file's name."""
    broken = tmp_path / "limits.toml"
    broken.write_text("store = 'memory://'\nlimits = [[\nstore")
    with pytest.raises(ConfigurationError, match=r"limits\.toml: .*line"):
        RateLimitSettings.from_file(broken)
    with pytest.raises(ConfigurationError, match=r"none\.toml: .*No such file"):
        RateLimitSettings.from_file(tmp_path / "none.toml")


def test_a_password_is_never_repeated() -> None:
    """Neither an error nor a repr tells what stands in the store's address."""
    with pytest.raises(ValidationError) as error:
        RateLimitSettings(store="reddis://user:hunter2@host")
    assert "hunter2" not in str(error.value)
    assert "hunter2" not in repr(RateLimitSettings(store="redis://user:hunter2@host"))
    assert "hunter2" not in repr(open_store("redis://user:hunter2@host"))
    with pytest.raises(ConfigurationError) as wrong:
        open_store("redis://user:hunter2@host:port/x")
    assert "hunter2" not in str(wrong.value)


def test_a_password_is_not_repeated_by_settings_around_these(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also nested in an app's own settings, whose configuration decides what an error shows."""

    class AppSettings(BaseSettings):
        model_config = SettingsConfigDict(env_nested_delimiter="__")
        ratelimit: RateLimitSettings = RateLimitSettings()

    monkeypatch.setenv("RATELIMIT__STORE", "redsi://:hunter2@host")
    with pytest.raises(ValidationError, match="ratelimit.store") as error:
        AppSettings()
    assert "hunter2" not in str(error.value)
    monkeypatch.setenv("RATELIMIT__STORE", "redis://:hunter2@host")
    monkeypatch.setenv("RATELIMIT__LIMITS", '[{"name": "a", "rate": "1/minute", "per": ["nobody"]}]')
    with pytest.raises(ValidationError, match="limits.0.per: 'nobody'") as error:
        AppSettings()
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("store", ["redis://host:port/0", "redis://host:99999", "rediss://host/zero", "redis://h/0/1"])
def test_an_address_is_checked_as_far_as_it_is_known(store: str) -> None:
    """A port or database that is none fails here, not when the middleware is made."""
    with pytest.raises(ValidationError, match=r"^1 validation error for RateLimitSettings\nstore\n"):
        RateLimitSettings(store=store)


def test_a_copy_is_checked_like_the_original() -> None:
    """`model_copy` keeps what was set, takes what fits and refuses what does not."""
    settings = RateLimitSettings(limits=[Limit(name="a", rate="1/minute")], exempt=["GET /x"], store_timeout=2)
    copy = settings.model_copy(update={"store": "redis://h"})
    assert (copy.store, copy.limits, copy.exempt, copy.store_timeout) == ("redis://h", settings.limits, ("GET /x",), 2)
    for wrong in ({"store": "redis//h"}, {"stroe": "redis://h"}, {"limits": [{"name": "b"}]}):
        with pytest.raises(ValidationError):
            settings.model_copy(update=wrong)


def test_copies_of_policies_and_styles_are_checked_too() -> None:
    """A text becomes a rate in a copy as well, and what is none fails."""
    one = Limit(name="a", rate="1/minute", per="token").model_copy(update={"rate": "6/minute"})
    assert (one.rate, one.per, one.scope) == (Rate(6, 60), ("token",), "token")
    with pytest.raises(ValidationError, match="rate"):
        one.model_copy(update={"rate": "bad"})
    with pytest.raises(ValidationError, match="problem"):
        ResponseStyle().model_copy(update={"problem": "html"})


def test_the_json_schema_takes_what_the_docs_write() -> None:
    """An editor that checks a settings file by the schema accepts texts for rates and for lists of one."""
    fields: Any = RateLimitSettings.model_json_schema()["$defs"]["Limit"]["properties"]
    assert fields["rate"]["type"] == "string"
    assert {"type": "string"} in fields["per"]["anyOf"]
    assert {"type": "string"} in fields["plans"]["additionalProperties"]["anyOf"]


def test_a_table_that_is_none_is_named(tmp_path: Path) -> None:
    """`ratelimit = 3` is no table, and `[limits]` is one where a list is meant."""
    path = tmp_path / "app.toml"
    path.write_text("ratelimit = 3\n")
    with pytest.raises(ConfigurationError, match=r"app\.toml: ratelimit must be a table"):
        RateLimitSettings.from_file(path)
    path.write_text('[limits]\nname = "a"\nrate = "1/minute"\n')
    with pytest.raises(ValidationError, match=r"write \[\[limits\]\]"):
        RateLimitSettings.from_file(path)


def test_an_empty_hash_key_is_none() -> None:
    """An empty key would silently hash without one."""
    for wrong in ("", "**********"):
        with pytest.raises(ValidationError, match="hash_key"):
            RateLimitSettings(hash_key=wrong)
    assert RateLimitSettings(hash_key="k").secret() == "k"
    assert "hunter2" not in repr(RateLimitSettings(hash_key="hunter2"))


def test_settings_nest_in_the_apps_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """`RATELIMIT__STORE` from the environment reaches the nested settings."""

    class AppSettings(BaseSettings):
        model_config = SettingsConfigDict(env_nested_delimiter="__")
        debug: bool = False
        ratelimit: RateLimitSettings = RateLimitSettings(limits=[{"name": "a", "rate": "1/minute"}])

    monkeypatch.setenv("RATELIMIT__STORE", "redis://cache/3")
    monkeypatch.setenv("RATELIMIT__LIMITS", '[{"name": "b", "rate": "2/hour", "per": ["token"]}]')
    settings = AppSettings().ratelimit
    assert (settings.store, settings.limits[0].rate) == ("redis://cache/3", Rate(2, 3600))


def test_a_table_of_a_larger_file_is_enough(tmp_path: Path) -> None:
    """`[ratelimit]` in an app's own TOML is read, and what is handed in wins."""
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
    """`responses` takes the pairs of the documents as well as tables."""
    style = ResponseStyle(problem="legacy")
    pairs = RateLimitSettings(responses=[(["/v1/*"], style)])
    tables = RateLimitSettings.model_validate({"responses": [{"paths": "/v1/*", "style": {"problem": "legacy"}}]})
    assert pairs == tables


def test_settings_do_not_change() -> None:
    """Frozen, so that what was compiled from them stays true."""
    with pytest.raises(ValidationError, match="frozen"):
        RateLimitSettings().store = "redis://x"  # type: ignore[misc]


def test_unlimited_in_toml_is_none() -> None:
    """TOML has no null: `"unlimited"` takes the limit away from a plan."""
    one: Any = Limit.model_validate({"name": "a", "rate": "1/minute", "plans": {"free": "unlimited", "b": "0/minute"}})
    assert one.plans == {"free": None, "b": Rate(0, 60)}
    assert one.model_dump()["plans"] == {"free": "unlimited", "b": "0/minute"}


@pytest.mark.parametrize("scheme", STORE_SCHEMES)
def test_every_scheme_that_settings_know_can_be_opened(scheme: str) -> None:
    """The settings' list of stores is the stores' own."""
    kind = MemoryStore if scheme == "memory" else RedisStore
    assert isinstance(
        open_store(f"{scheme}://" + ("host/name" * scheme.endswith("sentinel") or "host" * scheme.endswith("cluster"))),
        kind,
    )


@pytest.mark.parametrize("url", ["redis+clusters://a", "sentinel://a", "file://x", ""])
def test_other_schemes_are_refused(url: str) -> None:
    """What cannot be opened says what can."""
    with pytest.raises(ConfigurationError, match="memory, redis, rediss, unix"):
        open_store(url)


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [("/a?c", "/abc", True), ("/a?c", "/ac", False), ("/a/*", "/a/b/c", True), ("/a/{b}", "/a/{b}", True)],
)
def test_patterns(pattern: str, path: str, *, fits: bool) -> None:
    """`?` is one character, `*` any number of them, `/` included."""
    assert PathPattern(pattern)(path) is fits
