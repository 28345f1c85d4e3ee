"""`show`: the policies of the settings, as a table."""

from typing import Any, Final

import click

from ratelimit.cli.options import json_option, settings_options
from ratelimit.cli.output import Cell, console, print_json, print_table
from ratelimit.cli.target import Target
from ratelimit.inspection.policy_description import described

_COLUMNS: Final = ("NAME", "KIND", "RATE", "PER", "BURST", "PLANS", "SCOPE", "WHERE", "SHADOW", "ON-FAILURE")
_SHORT: Final = ("NAME", "KIND", "RATE", "PER", "BURST", "SHADOW", "ON-FAILURE")
_LONG: Final = ("NAME", "SCOPE", "PLANS", "WHERE")
_WIDE: Final = 120
"""Characters from which on all columns stand beside each other."""
_NONE: Final = "the settings have no policies"


@click.command()
@settings_options
@json_option
def show(*, target: Target, as_json: bool) -> None:
    """Print the policies of the settings."""
    policies = [described(policy) for policy in target.settings.policies]
    if as_json:
        print_json({"policies": policies, "exempt": list(target.settings.exempt)})
        return
    names, rows = list(_COLUMNS), [_row(each) for each in policies]
    if console().width >= _WIDE:
        print_table(names, rows, none=_NONE)
    else:  # The long columns in a table of their own.
        print_table(*_only(names, rows, _SHORT), none=_NONE)
        if rows:
            console().print()
            print_table(*_only(names, rows, _LONG), none="")
    if target.settings.exempt:
        console().print(f"\nexempt: {', '.join(target.settings.exempt)}", markup=False)


def _only(names: list[str], rows: list[list[Cell]], wanted: tuple[str, ...]) -> tuple[list[str], list[list[Cell]]]:
    places = [names.index(name) for name in wanted]
    return list(wanted), [[row[place] for place in places] for row in rows]


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
