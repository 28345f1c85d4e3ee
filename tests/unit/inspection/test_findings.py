"""Findings: their codes and severities."""

from ratelimit.inspection.findings import Finding, code_of, policy_in, severity_of, without_code, worst


def test_codes_stand_at_the_end_of_messages() -> None:
    """A message without one has the default."""
    assert code_of("a rate of zero [RL107]", "RL105") == "RL107"
    assert code_of("Input should be greater than 0", "RL105") == "RL105"
    assert without_code("a rate [x] of zero [RL107]") == "a rate [x] of zero"
    assert policy_in("quota 'a b' is shared") == "a b"
    assert policy_in("no policy at all") is None


def test_the_worst_severity_counts() -> None:
    """Notes are less than warnings, and these less than errors."""
    infos = Finding(code="RL615", severity=severity_of("RL615"), place="", message="")
    warning = Finding(code="RL605", severity=severity_of("RL605"), place="", message="")
    error = Finding(code="RL614", severity=severity_of("RL614"), place="x", message="m", line=3)
    assert [worst(found) for found in ([], [infos], [infos, warning], [infos, error, warning])] == [
        None,
        "info",
        "warning",
        "error",
    ]
    assert error.as_dict() == {"code": "RL614", "severity": "error", "place": "x", "line": 3, "message": "m"}
