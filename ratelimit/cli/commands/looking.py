"""`usage`: what a caller has used of everything."""

import click

from ratelimit.asgi.route_models import QuotaStatus, RateLimitStatus
from ratelimit.cli.options import caller_options, json_option, run, settings_options
from ratelimit.cli.output import Cell, console, print_json, print_table
from ratelimit.cli.target import Target
from ratelimit.errors import StoreUnavailable
from ratelimit.model.identity import Identity
from ratelimit.resolver.endpoint import UNMATCHED


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
        names = limiter.resolver.named.of_a_caller(identity) if endpoint is None else None
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
    _print_limits(limits)
    console().print()
    _print_quotas(quotas)
    return 0


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


COMMANDS = (usage,)
