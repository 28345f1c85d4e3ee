"""Redaction: values that may hold a secret are hidden wherever an error shows its input."""

from pydantic import SecretStr

from ratelimit.config.redaction import RedactedStr, RedactedValue, redact


def test_a_redacted_text_shows_the_scheme_of_a_store_and_nothing_else() -> None:
    """It stays the same text, so that it can be validated and used."""
    url = RedactedStr("redis://user:hunter2@host")
    assert (repr(url), url == "redis://user:hunter2@host") == ("'redis://…'", True)
    assert [repr(RedactedStr(text)) for text in ("hunter2", "hunter2://x", "")] == ["'…'"] * 3


def test_all_values_are_redacted_but_those_of_the_shown_fields() -> None:
    """A misspelled field may hold a secret as well, and so may a value of a wrong type."""
    secret = SecretStr("hunter2")
    data = {"limits": [1], "stroe": "hunter2", "store": ["hunter2"], "hash_key": secret, "response": None}
    redacted = redact(data, {"limits"})
    assert redacted["limits"] == [1]
    assert "hunter2" not in repr(redacted)
    assert isinstance(redacted["store"], RedactedValue)
    assert (redacted["stroe"], redacted["hash_key"], redacted["response"]) == ("hunter2", secret, None)
