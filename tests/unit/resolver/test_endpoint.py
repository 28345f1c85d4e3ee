"""Endpoints: their labels, and the path patterns of the settings that mean them."""

import pytest

from ratelimit.config.path_pattern import PathPattern
from ratelimit.resolver.endpoint import UNMATCHED, Endpoint


@pytest.mark.parametrize(
    ("endpoint", "label"),
    [
        (Endpoint(), "*"),
        (Endpoint("POST", UNMATCHED), "*"),
        (Endpoint("POST", "/v1/agents/{id}"), "POST /v1/agents/{id}"),
        (Endpoint("GET", "/list", "{tenant}.example.com"), "GET {tenant}.example.com/list"),
        (Endpoint("GET", "/list", full_template="/users/list"), "GET /users/list"),
        (Endpoint("GET", matched_patterns=("/api/*", "/api/x")), "GET /api/*"),
    ],
)
def test_a_label_is_method_and_template(endpoint: Endpoint, label: str) -> None:
    """A host or mount above it belongs to the label; all unknown paths share one."""
    assert endpoint.label == label


@pytest.mark.parametrize(
    ("endpoint", "pattern", "fits"),
    [
        (Endpoint(template="/x"), "/x", True),
        (Endpoint(template="/x"), "/xy", False),
        (Endpoint(template="/list", host="a.example.com"), "/list", True),
        (Endpoint(template="/list", host="a.example.com"), "*.example.com/list", True),
        (Endpoint(template="/list", full_template="/users/list"), "/list", True),
        (Endpoint(template="/list", full_template="/users/list"), "/users/*", True),
        (Endpoint(template="/list", full_template="/users/list"), "/orders/*", False),
        (Endpoint(matched_patterns=("/api/*", "/api/x")), "/api/x", True),
        (Endpoint(matched_patterns=("/api/*", "/api/x")), "*", False),
        (Endpoint(), "*", True),
        (Endpoint(), "/*", False),
    ],
)
def test_a_pattern_means_an_endpoint_with_or_without_its_host_and_mount(
    endpoint: Endpoint, pattern: str, *, fits: bool
) -> None:
    """A path that no route matches is meant by exactly the patterns that match it."""
    assert endpoint.fits(PathPattern(pattern)) is fits


def test_endpoints_are_compared_by_identity() -> None:
    """Two routes of one template may have different decorators."""
    assert Endpoint("GET", "/x") != Endpoint("GET", "/x")
