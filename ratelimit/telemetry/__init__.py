"""Metrics for Prometheus and OpenTelemetry: listeners of the extras `prometheus` and `otel`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ratelimit.telemetry.opentelemetry_listener import OpenTelemetryListener
    from ratelimit.telemetry.prometheus_listener import PrometheusListener

__all__ = ["OpenTelemetryListener", "PrometheusListener"]


def __getattr__(name: str) -> Any:
    """Import a listener, and with it the library that it is for, when it is asked for first."""
    if name == "PrometheusListener":
        from ratelimit.telemetry.prometheus_listener import PrometheusListener  # noqa: PLC0415

        return PrometheusListener
    if name == "OpenTelemetryListener":
        from ratelimit.telemetry.opentelemetry_listener import OpenTelemetryListener  # noqa: PLC0415

        return OpenTelemetryListener
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
