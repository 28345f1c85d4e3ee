"""`usage`, `top` and `tail`: what a caller has used, who is refused most, and refusals as they happen."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Final

import click
from rich.text import Text

from ratelimit._utils.texts import seconds_text, visible
from ratelimit.asgi.route_models import QuotaStatus, RateLimitStatus
from ratelimit.cli.hints import hint_at_missing_org
from ratelimit.cli.options import caller_options, json_option, run, seconds_option, settings_options
from ratelimit.cli.output import Cell, console, print_json, print_table
from ratelimit.cli.target import Target
from ratelimit.enforcement.refusal_stream import Refusal
from ratelimit.enforcement.statistics import Statistics
from ratelimit.enforcement.top_callers import MEASURES, By
from ratelimit.errors import ConfigurationError, StoreUnavailable
from ratelimit.limiter import Limiter
from ratelimit.model.identity import Identity
from ratelimit.resolver.endpoint import UNMATCHED

_TAIL_S: Final = 1.0
_PAGE: Final = 1000


@click.command()
@click.option("--endpoint", metavar="TEMPLATE", help="Also what is counted at this route template.")
@click.option("--method", default="GET", show_default=True)
@caller_options
@settings_options
@json_option
def usage(*, endpoint: str | None, method: str, identity: Identity, target: Target, as_json: bool) -> None:
    """Print what a caller has left of its limits, and has used of its quotas."""
    run(_usage(target, identity, endpoint, method, as_json=as_json))


async def _usage(target: Target, identity: Identity, endpoint: str | None, method: str, *, as_json: bool) -> int:
    async with target.limiter() as limiter:
        await limiter.overrides.refresh()  # Says why, where the store does not answer.
        hint_at_missing_org(limiter, identity)
        names = limiter.resolver.named.of_a_caller(identity) if endpoint is None else None
        notes = _state_of(limiter, identity)
        seen = await limiter.look(identity, method=method, endpoint=endpoint or UNMATCHED, policies=names)
        if seen.degraded:
            raise StoreUnavailable("it did not answer [RL404]")
        limits = [RateLimitStatus.of(each) for each in seen.limits if each.kind != "quota"]
        quotas = [
            QuotaStatus.of(each)
            for each in await limiter.usage(identity, method=method, endpoint=endpoint or UNMATCHED)
        ]
    if as_json:
        shown = [each.model_dump(mode="json") for each in limits]
        print_json({"limits": shown, "quotas": [each.model_dump(mode="json") for each in quotas]})
        return 0
    for note in notes:
        console().print(Text(note, style="yellow"))
    _print_limits(limits)
    console().print()
    _print_quotas(quotas)
    return 0


def _state_of(limiter: Limiter, identity: Identity) -> list[str]:
    """Return what holds beside the limits: a block, an exemption, policies that are paused."""
    listed = limiter.listed(identity)
    notes = (
        []
        if listed is None
        else ["the caller is allowed whatever it does" if listed.allowed else "the caller is blocked"]
    )
    for policy in limiter.settings.policies:
        switch = limiter.fleet.holding(policy.name)
        if switch is not None:
            notes.append(f"{policy.name} is {switch.mode if switch.mode == 'paused' else 'in shadow'}")
    return notes


def _print_limits(limits: list[RateLimitStatus]) -> None:
    names = ["LIMIT", "SCOPE", "USED", "OF", "LEFT", "UNIT", "RESETS"]
    rows: list[list[Cell]] = [
        [
            each.policy,
            each.scope,
            each.limit - each.remaining,
            each.limit,
            each.remaining,
            each.unit,
            f"{each.resets_at:%H:%M:%S}",
        ]
        for each in limits
    ]
    print_table(names, rows, none="no limit counts this caller", numbers=["USED", "OF", "LEFT"])


def _print_quotas(quotas: list[QuotaStatus]) -> None:
    names = ["QUOTA", "PERIOD", "USED", "OF", "LEFT", "UNIT", "LAST PERIOD", "RESETS"]
    rows: list[list[Cell]] = [
        [
            each.policy,
            each.period or "level",
            each.used,
            each.limit,
            each.remaining,
            each.unit,
            each.used_last_period,
            f"{each.resets_at:%Y-%m-%d %H:%M}" if each.resets_at else "-",
        ]
        for each in quotas
    ]
    print_table(names, rows, none="no quota counts this caller", numbers=["USED", "OF", "LEFT", "LAST PERIOD"])


@click.command()
@click.option("--by", type=click.Choice(MEASURES), default="refused", show_default=True)
@click.option("--last", default="1h", show_default=True, callback=seconds_option, help="How long back: 15m, 1h, 25h.")
@click.option("--policy", metavar="NAME", help="One policy; without it, all of them.")
@click.option("--count", type=click.IntRange(min=1), default=20, show_default=True)
@settings_options
@json_option
def top(*, by: By, last: int, policy: str | None, count: int, target: Target, as_json: bool) -> None:
    """Print the callers that were refused most, have used most, or came near to a limit most often.

    The app has to count for that: `statistics = true`.
    """
    run(_top(target, by, last, policy, count, as_json=as_json))


async def _top(target: Target, by: By, last: int, policy: str | None, count: int, *, as_json: bool) -> int:
    async with target.limiter() as limiter:
        if policy is not None:
            limiter.resolver.named.get(policy)
        found = await _statistics(limiter).top(by, seconds=last, policy=policy, count=count)
    if as_json:
        print_json({"callers": [{"policy": each.policy, "caller": each.caller, "count": each.count} for each in found]})
        return 0
    rows: list[list[Cell]] = [[each.policy, each.caller, each.count] for each in found]
    print_table(["POLICY", "CALLER", by.upper()], rows, none="none in that time", numbers=[by.upper()])
    return 0


@click.command()
@click.option("--policy", metavar="NAME", help="Refusals of one policy.")
@click.option("--shadow", is_flag=True, help="What policies in shadow would have refused, and nothing else.")
@click.option("--last", type=click.IntRange(min=0), default=10, show_default=True, help="Refusals to begin with.")
@click.option("--follow/--no-follow", default=True, show_default=True, help="Print new ones until interrupted.")
@settings_options
@json_option
def tail(*, policy: str | None, shadow: bool, last: int, follow: bool, target: Target, as_json: bool) -> None:
    """Print refusals as they happen, of all workers, within 2 seconds. The app has to count: `statistics = true`."""
    shown = Shown(policy=policy, shadow=shadow, as_json=as_json)
    with suppress(KeyboardInterrupt):
        run(_tail(target, shown, last, follow=follow))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Which refusals `tail` prints, and how."""

    policy: str | None
    shadow: bool
    as_json: bool

    def of(self, refusals: Sequence[Refusal]) -> list[Refusal]:
        """Return those that are wanted."""
        fits = [each for each in refusals if self.policy is None or each.policy == self.policy]
        return [each for each in fits if each.shadow or not self.shadow]

    def print(self, refusals: Sequence[Refusal]) -> None:
        """Print refusals, a line each."""
        for each in refusals:
            click.echo(_json(each) if self.as_json else visible(_line(each)).replace("\n", "\\n"))


async def _tail(target: Target, shown: Shown, last: int, *, follow: bool) -> int:
    async with target.limiter() as limiter:
        stream = _statistics(limiter).refusals
        if shown.policy is not None:
            limiter.resolver.named.get(shown.policy)
        seen = await stream.read(last=_PAGE)
        shown.print(shown.of(seen)[-last:] if last else ())
        place = seen[-1].id if seen else "0"
        while follow:
            await asyncio.sleep(_TAIL_S)
            new = await stream.read(last=_PAGE, after=place)
            shown.print(shown.of(new))
            place = new[-1].id if new else place
    return 0


def _json(each: Refusal) -> str:
    values = asdict(each)
    del values["limits"]  # They are long, and `explain` tells them.
    return json.dumps(values)


def _line(each: Refusal) -> str:
    at = datetime.fromtimestamp(each.at, UTC)
    status = "shadow" if each.shadow else str(each.status)
    where = f"{each.method} {each.route}".strip()
    caller = "" if each.counter.startswith(each.caller) else f" ({each.caller})"
    return f"{at:%H:%M:%S} {status:6} {each.policy} {each.counter}{caller} {where} wait {seconds_text(each.wait)}"


def _statistics(limiter: Limiter) -> Statistics:
    if limiter.statistics is None:
        raise ConfigurationError("statistics: the settings do not count: write statistics = true [RL804]")
    return limiter.statistics


COMMANDS = (usage, top, tail)
