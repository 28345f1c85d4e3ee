"""`export`: files for dashboards, alerts, documents and editors."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Final

import click

from ratelimit.asgi.openapi import document_limits
from ratelimit.cli.options import guarded
from ratelimit.cli.target import imported
from ratelimit.config.settings import RateLimitSettings
from ratelimit.errors import ConfigurationError

_FILES: Final = {"grafana": "grafana.json", "alerts": "alerts.yaml"}


@click.command()
@click.argument("what", type=click.Choice(["grafana", "alerts", "openapi", "schema"]))
@click.option("--app", envvar="RATELIMIT_APP", metavar="MODULE:APP", help="The FastAPI app, for openapi.")
@click.option("--output", "-o", type=click.Path(dir_okay=False), help="A file, instead of the terminal.")
def export(*, what: str, app: str | None, output: str | None) -> None:
    """Print a Grafana dashboard, alerting rules, the OpenAPI document of an app, or the JSON Schema of the settings file."""
    text = guarded(lambda: _text(what, app))
    if output is None:
        click.echo(text)
    else:
        guarded(lambda: _write(output, text))


def _write(output: str, text: str) -> None:
    try:
        Path(output).write_text(text + "\n", "utf-8")
    except OSError as error:
        raise ConfigurationError(f"--output: {output}: {error.strerror} [RL805]") from None


def _text(what: str, app: str | None) -> str:
    if what in _FILES:
        return (files("ratelimit.telemetry") / _FILES[what]).read_text("utf-8").rstrip("\n")
    if what == "schema":
        return json.dumps(RateLimitSettings.model_json_schema(), indent=2)
    if app is None:
        raise ConfigurationError("openapi needs the app: --app main:app [RL801]")
    return json.dumps(document_limits(imported(app)), indent=2)


COMMANDS = (export,)
