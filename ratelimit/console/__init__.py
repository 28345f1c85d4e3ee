"""The console: limits and quotas in a browser, for operators; and a page for each caller. Needs the extra `[console]`.

`app.mount("/ratelimit", console(limiter, authorize=…))`, `app.mount("/limits", caller_page())`.
"""

from ratelimit.console.application import Console as console  # noqa: N813 - called as functions are
from ratelimit.console.own_page import CallerPage as caller_page  # noqa: N813

__all__ = ["caller_page", "console"]
