"""Settings files: read again when they have changed, and only then."""

import os
from pathlib import Path
from typing import Any

import pytest

from ratelimit import ConfigurationError, RateLimitSettings
from ratelimit.config.settings_file import SettingsFile, signature_of

LIMIT = '[[limits]]\nname = "a"\nrate = "{}/minute"\nper = "token"\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "limits.toml"
    path.write_text(LIMIT.format(5))
    return path


def watched(path: Path, **overrides: Any) -> SettingsFile[RateLimitSettings]:
    file = RateLimitSettings.from_file(path, watch=True, **overrides).watched_file
    assert file is not None
    return file


def rate_of(settings: RateLimitSettings | None) -> str:
    assert settings is not None
    return str(settings.limits[0].rate)


def test_a_change_is_loaded_once_it_is_quiet(path: Path) -> None:
    """With the fields that win over the file's; a file that is away for a moment is no change."""
    file = watched(path, key_prefix="own")
    assert file.changed() is None
    path.write_text(LIMIT.format(77))
    assert file.changed() is None  # It may be in the middle of being written.
    changed = file.changed()
    assert rate_of(changed) == "77/minute"
    assert changed is not None
    assert (changed.key_prefix, changed.watched_file) == ("own", file)
    path.unlink()
    assert [file.changed() for _ in range(2)] == [None, None]
    with pytest.raises(ConfigurationError, match="the file is gone"):
        file.changed()
    assert file.changed() is None
    path.write_text(LIMIT.format(8))
    assert [file.changed() is None for _ in range(3)] == [True, False, True]


@pytest.mark.parametrize(("text", "message"), [("[[limits]", "limits.toml: "), ("\n", "the file is empty")])
def test_a_mistake_is_reported_once(path: Path, text: str, message: str) -> None:
    """Also a file that an editor has emptied and not yet filled; what comes after it is loaded."""
    file = watched(path)
    path.write_text(text)
    assert file.changed() is None
    with pytest.raises(ConfigurationError, match=message):
        file.changed()
    assert file.changed() is None
    path.write_text(LIMIT.format(9))
    assert [file.changed() is None for _ in range(3)] == [True, False, True]


def test_a_save_while_the_file_is_read_is_not_lost(path: Path) -> None:
    """The signature is from before it was read."""
    before = signature_of(path)
    settings = RateLimitSettings.from_file(path)
    path.write_text(LIMIT.format(3000))
    file = SettingsFile(path, {}, RateLimitSettings.from_file, before)
    assert (rate_of(settings), file.changed(), rate_of(file.changed())) == ("5/minute", None, "3000/minute")


def test_an_edit_that_keeps_the_size_is_seen(path: Path) -> None:
    """By its time; two files are one where path and fields are the same."""
    file = SettingsFile(path, {}, RateLimitSettings.from_file, signature_of(path))
    path.write_text(LIMIT.format(6))
    os.utime(path, ns=(1, 1))
    assert [file.changed() is None for _ in range(2)] == [True, False]
    assert file == SettingsFile(path, {}, RateLimitSettings.from_file, None)
    assert len({file, SettingsFile(path, {"store": "memory://"}, RateLimitSettings.from_file, None)}) == 2
    assert RateLimitSettings.from_file(path).watched_file is None


def test_a_copy_is_watched_with_its_own_fields(path: Path) -> None:
    """They win over the file's at each reload."""
    file = RateLimitSettings.from_file(path, watch=True).model_copy(update={"key_prefix": "own"}).watched_file
    assert file is not None
    path.write_text(LIMIT.format(70))
    assert file.changed() is None
    changed = file.changed()
    assert changed is not None
    assert (changed.key_prefix, rate_of(changed)) == ("own", "70/minute")
