"""The group of all commands, and where the program begins."""

import io
import logging
import sys

import click

from ratelimit.cli.commands import (
    checking,
    controls,
    doctoring,
    explaining,
    exporting,
    fleet,
    looking,
    rehearsing,
    serving,
    settings,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="ratelimit-asgi", prog_name="ratelimit")
def cli() -> None:
    """Check, explain and operate rate limits.

    Exit codes: 0 fine, 1 findings, 2 wrong usage or an invalid file, 3 the store is away.
    """
    for stream in (sys.stdout, sys.stderr):  # A terminal may lack a character.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    log = logging.getLogger("ratelimit")  # The limiter's own lines would stand among the output.
    log.addHandler(logging.NullHandler())
    log.propagate = False


for module in (checking, settings, explaining, looking, controls, fleet, doctoring, rehearsing, exporting, serving):
    for command in module.COMMANDS:
        cli.add_command(command)
