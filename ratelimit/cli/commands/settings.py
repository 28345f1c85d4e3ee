"""`show`: the policies of the settings, as a table."""

from typing import Any

import click

from ratelimit.cli.options import json_option, settings_options
from ratelimit.cli.output import Cell, console, print_json, print_table
from ratelimit.cli.target import Target
from ratelimit.config.policies import Limit, Policy, Quota
from ratelimit.inspection.explanation import rate_text


@click.command()
@settings_options
@json_option
def show(*, target: Target, as_json: bool) -> None:
    """Print the policies of the settings."""
    policies = [_described(policy) for policy in target.settings.policies]
    if as_json:
        print_json({"policies": policies, "exempt": list(target.settings.exempt)})
        return
    names = ["NAME", "KIND", "RATE", "PER", "BURST", "PLANS", "SCOPE", "WHERE", "SHADOW", "ON-FAILURE"]
    print_table(names, [_row(each) for each in policies], none="the settings have no policies")
    if target.settings.exempt:
        console().print(f"\nexempt: {', '.join(target.settings.exempt)}", markup=False)


def _described(policy: Policy) -> dict[str, Any]:
    amount = rate_text(policy.amount)
    return {
        "name": policy.name,
        "kind": policy.kind,
        "rate": f"{amount}/{policy.period or 'level'}" if isinstance(policy, Quota) else amount,
        "per": [*policy.per, *(["key()"] if policy.key is not None else [])],
        "burst": policy.burst if isinstance(policy, Limit) else None,
        "plans": {plan: rate_text(rate) for plan, rate in policy.by_plan.items()},
        "scope": policy.scope,
        "methods": list(policy.methods),
        "paths": list(policy.paths),
        "shadow": policy.shadow,
        "on_store_failure": policy.on_store_failure,
        "manual": policy.manual,
    }


def _row(each: dict[str, Any]) -> list[Cell]:
    return [
        each["name"],
        each["kind"],
        each["rate"],
        "+".join(each["per"]) or "all",
        f"{each['burst']:.0%}" if each["burst"] else "-",
        ", ".join(f"{plan} {rate}" for plan, rate in each["plans"].items()) or "-",
        each["scope"],
        " ".join([*each["methods"], *each["paths"]]) or ("by name" if each["manual"] else "all"),
        "yes" if each["shadow"] else "-",
        each["on_store_failure"],
    ]


COMMANDS = (show,)
