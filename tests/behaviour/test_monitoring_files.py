"""The promise: the dashboard and the alerts name metrics, labels and values that a scrape has."""

import json
import re
import shutil
import subprocess
from importlib.resources import as_file, files
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from ratelimit.enforcement.tallies import STATES
from ratelimit.telemetry import PrometheusListener
from ratelimit.telemetry.measures import METRICS
from ratelimit.telemetry.prometheus_listener import prometheus_name

DASHBOARD: dict[str, Any] = json.loads((files("ratelimit.telemetry") / "grafana.json").read_text())
ALERTS: dict[str, Any] = yaml.safe_load((files("ratelimit.telemetry") / "alerts.yaml").read_text())


def series() -> dict[str, set[str]]:
    """Return the names of all series, with their labels."""
    PrometheusListener(registry=(registry := CollectorRegistry()))
    text = generate_latest(registry).decode()
    found: dict[str, set[str]] = {}
    for metric in METRICS:
        name, labels = prometheus_name(metric), set(metric.labels)
        assert f"# TYPE {name}" in text
        if metric.kind == "histogram":
            found |= {f"{name}_bucket": labels | {"le"}, f"{name}_count": labels, f"{name}_sum": labels}
        else:
            found[f"{name}_total" if metric.kind == "counter" else name] = labels
    return found


def expressions() -> list[str]:
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    annotations = [each["expr"] for each in DASHBOARD["annotations"]["list"]]
    variables = [each["query"]["query"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]
    return [*panels, *annotations, *variables, *(rule["expr"] for rule in ALERTS["groups"][0]["rules"])]


@pytest.mark.parametrize("expression", expressions())
def test_each_expression_is_about_a_series_that_there_is(expression: str) -> None:
    """By its name, its labels, and the values of states."""
    known = series()
    names = re.findall(r"ratelimit_\w+", expression)
    assert names
    allowed = {"instance", "job"}.union(*(known[name] for name in names))
    for group in re.findall(r"by \(([^)]*)\)", expression):
        assert {label.strip() for label in group.split(",")} <= allowed
    for selector in re.findall(r"\{([^{}]*)\}", expression):
        for label, value in re.findall(r'(\w+)[=!~]+"([^"]*)"', selector):
            assert label in allowed
            assert label != "state" or value in STATES
    assert expression.count("(") == expression.count(")")


def test_the_dashboard_has_no_panel_on_another() -> None:
    """Each has its place, its unit and its data source."""
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places) >= 12
    assert all(panel["fieldConfig"]["defaults"]["unit"] for panel in DASHBOARD["panels"])
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} == {"datasource", "policy"}


def test_each_alert_says_what_it_means() -> None:
    """With a severity."""
    for rule in ALERTS["groups"][0]["rules"]:
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert rule["annotations"]["summary"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_accepts_the_rules() -> None:
    """As Prometheus would."""
    with as_file(files("ratelimit.telemetry") / "alerts.yaml") as path:
        subprocess.run(["promtool", "check", "rules", str(path)], check=True)
