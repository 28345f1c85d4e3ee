"""The console: limits and quotas in a browser, for operators; and a page for each caller (`pip install ratelimit-asgi[console]`).

`app.mount("/ratelimit", console(limiter, authorize=…))`, `app.mount("/limits", caller_page())`.
"""

try:
    from ratelimit.console.application import Console as console  # noqa: N813 - called as functions are
    from ratelimit.console.own_page import CallerPage as caller_page  # noqa: N813
except ModuleNotFoundError as error:
    if error.name not in {"jinja2", "markupsafe"}:
        raise
    raise ModuleNotFoundError(
        f"ratelimit.console needs {error.name}, which is not installed: pip install 'ratelimit-asgi[console]'"
    ) from error

__all__ = ["caller_page", "console"]
