"""Settings files: read again when they have changed, and only then."""

import os
from pathlib import Path

import pytest

from ratelimit import ConfigurationError, RateLimitSettings
from ratelimit.config.settings_file import SettingsFile

LIMIT = '[[limits]]\nname = "a"\nrate = "{}/minute"\nper = "token"\n'


def test_a_change_is_loaded_once(tmp_path: Path) -> None:
    """With the fields that win over the file's; a file that is away for a moment is no change."""
    path = tmp_path / "limits.toml"
    path.write_text(LIMIT.format(5))
    file = RateLimitSettings.from_file(path, watch=True, key_prefix="own").watched_file
    assert file is not None
    assert file.changed() is None
    path.write_text(LIMIT.format(77))
    changed = file.changed()
    assert changed is not None
    assert (str(changed.limits[0].rate), changed.key_prefix, changed.watched_file) == ("77/minute", "own", file)
    path.unlink()
    assert [file.changed() for _ in range(2)] == [None, None]
    path.write_text(LIMIT.format(8))
    assert file.changed() is not None


def test_a_mistake_is_reported_once(tmp_path: Path) -> None:
    """And what comes after it is loaded."""
    path = tmp_path / "limits.toml"
    path.write_text(LIMIT.format(5))
    file = RateLimitSettings.from_file(path, watch=True).watched_file
    assert file is not None
    path.write_text("[[limits]")
    with pytest.raises(ConfigurationError, match="limits.toml: "):
        file.changed()
    assert file.changed() is None
    path.write_text(LIMIT.format(9))
    assert file.changed() is not None


def test_an_edit_that_keeps_the_size_is_seen(tmp_path: Path) -> None:
    """By its time; two files are one where path and fields are the same."""
    path = tmp_path / "limits.toml"
    path.write_text(LIMIT.format(5))
    file = SettingsFile(path, {}, RateLimitSettings.from_file)
    path.write_text(LIMIT.format(6))
    os.utime(path, ns=(1, 1))
    assert file.changed() is not None
    assert file == SettingsFile(path, {}, RateLimitSettings.from_file)
    assert len({file, SettingsFile(path, {"store": "memory://"}, RateLimitSettings.from_file)}) == 2
    assert RateLimitSettings.from_file(path).watched_file is None
