"""Options that several commands share, and how a command runs: its errors become messages and exit codes."""

import asyncio
import getpass
import re
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any, Final

import click
from pydantic import ValidationError

from ratelimit.cli.output import STORE_AWAY, USAGE, print_error
from ratelimit.cli.target import Target, identity_of, load_target
from ratelimit.clock import system_clock
from ratelimit.errors import ConfigurationError, OverRelease, StoreError

Command = Callable[..., Any]

_DURATION: Final = re.compile(r"(\d+)([smhd])")
_CODE: Final = re.compile(r"RL\d{3}")
_CALLER: Final = ("token", "token_hash", "org", "ip", "plan", "priority", "dimension", "grant")
"""The options that describe a caller."""

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def settings_options(command: Command) -> Command:
    """Add `--config`, `--app` and `--store`, and hand the command what they name as `target`."""

    @click.option("--config", envvar="RATELIMIT_CONFIG", metavar="FILE", help="A TOML file, or module:settings.")
    @click.option("--app", envvar="RATELIMIT_APP", metavar="MODULE:APP", help="The app: its settings and its routes.")
    @click.option("--store", envvar="RATELIMIT_STORE", metavar="URL", help="The store, instead of the settings'.")
    @wraps(command)
    def wrapped(*, config: str | None, app: str | None, store: str | None, **options: Any) -> Any:
        return command(target=_loaded(config, app, store), **options)

    return wrapped


def json_option(command: Command) -> Command:
    """Add `--json`, as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def ignore_option(command: Command) -> Command:
    """Add `--ignore`: codes of findings that are not reported."""
    text = "A code that is not reported."
    return click.option("--ignore", multiple=True, metavar="CODE", callback=_codes, help=text)(command)


def caller_options(command: Command) -> Command:
    """Add the options that describe a caller, and hand the command its `identity`."""

    @click.option("--token", help="The caller's token; it is hashed at once.")
    @click.option("--token-hash", help="The hash of the caller's token, whole, as `top` prints it.")
    @click.option("--org", help="The caller's organization.")
    @click.option("--ip", help="The caller's address.")
    @click.option("--plan", help="The caller's plan.")
    @click.option("--priority", help="The caller's priority.")
    @click.option("--dimension", multiple=True, metavar="NAME=VALUE", help="A dimension of the settings.")
    @click.option("--grant", multiple=True, metavar="POLICY=RATE", help="A rate that was granted to the token.")
    @wraps(command)
    def wrapped(**options: Any) -> Any:
        own = {name: options.pop(name) for name in _CALLER}
        return command(identity=guarded(lambda: identity_of(**own)), **options)

    return wrapped


def reason_options(command: Command) -> Command:
    """Add `--why` and `--by`."""
    why = click.option("--why", help="The reason, for the audit trail.")
    by = click.option("--by", default=_user, show_default="the user", help="Who does it, for the audit trail.")
    return why(by(command))


def until_option(*, required: bool = False) -> Callable[[Command], Command]:
    """Add `--until`: an instant (ISO 8601), or how long from now: `30m`, `2h`, `7d`."""
    return click.option(
        "--until", required=required, callback=_until, metavar="TIME", help="2h, 7d, or 2026-12-24T18:00+01:00."
    )


def run(work: Coroutine[Any, Any, int]) -> None:
    """Run what a command does, and end with its exit code; errors are printed."""
    sys.exit(guarded(lambda: asyncio.run(work)))


def guarded(action: Callable[[], Any]) -> Any:
    """Return what an action returns; print an expected error and end with its exit code."""
    try:
        return action()
    except (ConfigurationError, OverRelease) as error:
        print_error(str(error))
        sys.exit(USAGE)
    except ValidationError as error:
        print_error("; ".join(validation_texts(error)))
        sys.exit(USAGE)
    except StoreError as error:
        print_error(f"the store is unavailable: {error}")
        sys.exit(STORE_AWAY)


def validation_texts(error: ValidationError) -> list[str]:
    """Return the field's path and the message of each mistake."""
    return [f"{'.'.join(map(str, each['loc'])) or 'settings'}: {each['msg']}" for each in error.errors()]


def seconds_option(context: click.Context, parameter: click.Parameter, value: str) -> int:
    """Return the seconds of an option that is a duration, such as `15m`."""
    del context
    found = _DURATION.fullmatch(value)
    if found is None:
        raise click.BadParameter(f"{value!r} is no duration, such as 15m, 1h or 1d", param=parameter)
    return int(found[1]) * _UNITS[found[2]]


def _loaded(config: str | None, app: str | None, store: str | None) -> Target:
    target: Target = guarded(lambda: load_target(config, app, store))
    return target


def _codes(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    del context
    for value in values:
        if not _CODE.fullmatch(value):
            raise click.BadParameter(f"{value!r} is no code, such as RL610", param=parameter)
    return values


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return None


def _until(context: click.Context, parameter: click.Parameter, value: str | None) -> datetime | None:
    del context
    if value is None:
        return None
    found = _DURATION.fullmatch(value)
    try:
        if found is not None:
            later = timedelta(seconds=int(found[1]) * _UNITS[found[2]])
            return datetime.fromtimestamp(system_clock() / 1e6, UTC) + later
        instant = datetime.fromisoformat(value)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{value!r} is neither a duration, such as 2h, nor an instant (ISO 8601)") from None
    if instant.tzinfo is None:
        raise click.BadParameter(f"{value!r} needs a time zone: {value}Z or {value}+01:00", param=parameter)
    return instant
