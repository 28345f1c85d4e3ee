"""Fleet switches and the audit trail: what holds for all workers, and who has changed what."""

from datetime import datetime
from typing import Literal

import click

from ratelimit.cli.options import json_option, reason_options, run, settings_options, until_option
from ratelimit.cli.output import console, ending, instant_text, iso_text, print_json, print_table
from ratelimit.cli.target import Target
from ratelimit.controls.change_text import change_text

_policy = click.option("--policy", metavar="NAME", help="One policy; without it, all of them.")


@click.group()
def shadow() -> None:
    """Let policies count and report, and refuse nothing, in all workers."""


@shadow.command("on")
@_policy
@until_option()
@reason_options
@settings_options
def shadow_on(*, target: Target, policy: str | None, until: datetime | None, why: str | None, by: str | None) -> None:
    """Switch shadow on; it is felt within 2 seconds."""
    run(_switch(target, "shadow", policy, until, why, by))


@shadow.command("off")
@_policy
@reason_options
@settings_options
def shadow_off(*, target: Target, policy: str | None, why: str | None, by: str | None) -> None:
    """Let policies refuse again."""
    run(_off(target, "shadow", policy, why, by))


@click.command()
@_policy
@until_option(required=True)
@reason_options
@settings_options
def pause(*, target: Target, policy: str | None, until: datetime, why: str | None, by: str | None) -> None:
    """Let policies neither count nor refuse, in all workers, until a time."""
    run(_switch(target, "pause", policy, until, why, by))


@click.command()
@_policy
@reason_options
@settings_options
def resume(*, target: Target, policy: str | None, why: str | None, by: str | None) -> None:
    """End a pause."""
    run(_off(target, "paused", policy, why, by))


@click.command()
@settings_options
@json_option
def switches(*, target: Target, as_json: bool) -> None:
    """Print which policies are in shadow or paused."""
    run(_list(target, as_json=as_json))


@click.command()
@click.option("--last", type=click.IntRange(min=1), default=20, show_default=True, help="How many changes.")
@settings_options
@json_option
def audit(*, target: Target, last: int, as_json: bool) -> None:
    """Print who has changed what while the app ran, the newest first."""
    run(_audit(target, last, as_json=as_json))


async def _switch(  # noqa: PLR0917
    target: Target, mode: str, policy: str | None, until: datetime | None, why: str | None, by: str | None
) -> int:
    async with target.limiter() as limiter:
        change = limiter.fleet.shadow if mode == "shadow" else limiter.fleet.pause
        await change(policy=policy, until=until, why=why, by=by)
    end = "" if until is None else f" until {until:%Y-%m-%d %H:%M:%S %Z}"
    console().print(f"{policy or 'all policies'}: {'in shadow' if mode == 'shadow' else 'paused'}{end}", markup=False)
    return 0


async def _off(
    target: Target, mode: Literal["shadow", "paused"], policy: str | None, why: str | None, by: str | None
) -> int:
    async with target.limiter() as limiter:
        existed = await limiter.fleet.off(policy=policy, mode=mode, why=why, by=by)
    name = policy or "all policies"
    console().print(f"{name}: enforced again" if existed else f"{name}: no switch was set", markup=False)
    return 0


async def _list(target: Target, *, as_json: bool) -> int:
    async with target.limiter() as limiter:
        found = await limiter.fleet.list()
    rows = [{"policy": each.policy, "mode": each.mode, **ending(each)} for each in found]
    if as_json:
        print_json({"switches": rows})
        return 0
    shown = [[each.policy or "all", each.mode, instant_text(each.until), each.by, each.why] for each in found]
    print_table(["POLICY", "MODE", "UNTIL", "BY", "WHY"], shown, none="all policies are enforced")
    return 0


async def _audit(target: Target, last: int, *, as_json: bool) -> int:
    async with target.limiter() as limiter:
        found = await limiter.audit.list(last)
    rows = [
        {
            "at": iso_text(each.at),
            "action": each.action,
            "entry": each.entry,
            "values": dict(each.values),
            **ending(each),
        }
        for each in found
    ]
    if as_json:
        print_json({"changes": rows})
        return 0
    shown = [
        [f"{each.at:%m-%d %H:%M:%S}", each.by, change_text(each), instant_text(each.until), each.why] for each in found
    ]
    print_table(["AT (UTC)", "BY", "CHANGE", "UNTIL", "WHY"], shown, none="no change is known")
    return 0


COMMANDS = (shadow, pause, resume, switches, audit)
