"""Rendering: templates become pages, and every value in them is escaped."""

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse, Response

from ratelimit._utils.texts import key_text, seconds_text, visible
from ratelimit.clock import system_clock
from ratelimit.console.assets import version_of
from ratelimit.console.caller_reference import query_of_label
from ratelimit.console.forms import DURATIONS, NO_END, THE_DAY
from ratelimit.console.notices import DONE_COOKIE, notice_of
from ratelimit.console.security import CSRF_COOKIE, set_cookie
from ratelimit.console.visit import Visit

_THOUSANDS: Final = 10_000


def render(visit: Visit, template: str, *, status: int = 200, **values: Any) -> Response:
    """Return a page of the console. Text that is no Unicode (a lone surrogate) is shown as a question mark."""
    notice = notice_of(visit.request)
    page = _environment().get_template(template).render(visit=visit, notice=notice, **values)
    response = HTMLResponse(page.encode("utf-8", "replace"), status)
    if visit.request.cookies.get(CSRF_COOKIE) != visit.csrf:
        set_cookie(response, visit.request, CSRF_COOKIE, visit.csrf)
    if notice is not None:
        set_cookie(response, visit.request, DONE_COOKIE, "", seconds=0)
    return response


def render_bare(template: str, base: str, *, status: int = 200, **values: Any) -> Response:
    """Return a page that belongs to no operator: the caller's own, or an error."""
    page = _environment().get_template(template).render(base=base, **values)
    return HTMLResponse(page.encode("utf-8", "replace"), status)


def fragment(template: str, **values: Any) -> str:
    """Return a part of a page."""
    return _environment().get_template(template).render(**values).encode("utf-8", "replace").decode()


@cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("ratelimit.console"),
        autoescape=True,
        finalize=_finalized,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(
        number=number_text,
        seconds=seconds_text,
        instant=instant_text,
        clock=clock_text,
        share=share_text,
        key=key_text,
        rate=grouped_rate,
        label=label_text,
        reset=reset_text,
        field=field_text,
    )
    found.globals.update(
        version_of=version_of,
        durations=list(DURATIONS),
        no_end=NO_END,
        the_day=THE_DAY,
        query_of_label=query_of_label,
        in_a_month=in_a_month,
    )
    return found


def _finalized(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def field_text(value: object) -> Markup:
    """Return the value of a hidden field as it is: a change names whom it is for by it."""
    return escape(value)


def in_a_month() -> str:
    """Return the day that forms suggest, 30 days from now."""
    return f"{datetime.fromtimestamp(system_clock() / 1e6, UTC) + timedelta(days=30):%Y-%m-%d}"


def number_text(number: float | None) -> str:
    """Return a number as people read it: 9,999, and 12.3k, 4.56M from there on."""
    if number is None:
        return "–"
    if number < _THOUSANDS:
        return f"{number:,.0f}"
    for unit, size in (("k", 1e3), ("M", 1e6), ("G", 1e9)):
        if number < 999.5 * size:
            return f"{number / size:.3g}{unit}"
    return f"{number / 1e12:,.3g}T"


def grouped_rate(rate: str) -> str:
    """Return a rate with its thousands apart: `1,000,000/month`."""
    number, slash, period = rate.partition("/")
    return f"{int(number):,}{slash}{period}" if number.isdigit() else rate


def label_text(label: str) -> str:
    """Return a label as people read it; what callers choose stays escaped, but for blanks."""
    return label.replace("%20", " ")


def reset_text(reset_at: float, now: float) -> Markup | str:
    """Return when a counter is empty again: `in 12 s` within an hour, else the instant."""
    return f"in {seconds_text(max(0.0, reset_at - now))}" if reset_at - now < 3600 else instant_text(reset_at)


def instant_text(instant: datetime | float | None) -> Markup | str:
    """Return an instant in UTC, to the minute, as an element that a script may turn into local time."""
    if instant is None:
        return "–"
    at = instant if isinstance(instant, datetime) else datetime.fromtimestamp(instant, UTC)
    at = at.astimezone(UTC)
    return Markup('<time datetime="{}">{} UTC</time>').format(
        at.isoformat(timespec="seconds"), at.strftime("%Y-%m-%d %H:%M")
    )


def clock_text(instant: float) -> Markup:
    """Return the time of the day, in UTC, to the second."""
    at = datetime.fromtimestamp(instant, UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        at.isoformat(timespec="milliseconds"), at.strftime("%H:%M:%S")
    )


def share_text(part: float, whole: float) -> str:
    """Return a share in percent; nothing of nothing is 0 %."""
    share = 100 * part / whole if whole else 0.0
    return "0 %" if not share else "< 0.1 %" if share < 0.1 else f"{share:.1f} %" if share < 10 else f"{share:.0f} %"
