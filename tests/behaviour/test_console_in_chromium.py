"""The promise: people use the console in a real browser, on a desk and on a phone, with memory and with three workers.

It tests `console.charts` and `console.rendering` too. `DOCS=1` writes the pictures of docs/console.md.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.chromium import PHONE, Watched, chromium
from tests.support.redis_server import RedisServer
from tests.support.servers import serving
from tests.support.waiting import pause, until

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
PAGES = {
    "overview": "",
    "policy": "policies/agents",
    "callers": "callers",
    "caller": "caller?org=globex&plan=pro",
    "quotas": "quotas",
    "quota": "quotas/requests",
    "live": "live",
}
SHOWN = {"overview", "policy", "caller", "quota", "live", "overview-phone"}
"""The pictures of the docs."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module", params=["memory", "redis"])
def url(request: pytest.FixtureRequest, browser: Any) -> Iterator[str]:
    """Return the address of an app with the console: one worker that counts in memory, or three on Redis."""
    store, workers = "memory://", 1
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        with server.client() as client:
            client.flushall()
        store, workers = server.url, 3
    with serving("uvicorn", "tests.support.console_app:app", workers=workers, STORE=store) as served:
        yield served.url


@pytest.fixture(scope="module")
def seeded(browser: Any) -> Iterator[str]:
    """Return the address of an app that seems to have served a day of traffic."""
    with serving("uvicorn", "tests.support.console_app:app", workers=1, SEED="1") as served:
        yield served.url


@pytest.fixture
def watched(browser: Any, url: str) -> Iterator[Watched]:
    """Yield a page whose scripts, requests and policies were all fine in the end."""
    found = Watched(browser, url)
    yield found
    assert_fine(found)
    found.context.close()


def assert_fine(found: Watched) -> None:
    assert found.errors == []
    assert [each for each in found.requests if not each.startswith(f"{found.url}/")] == []


def ask(url: str, token: str, times: int = 1, path: str = "/v1/agents") -> list[int]:
    # A connection each: any of the workers answers.
    headers = {"authorization": f"Bearer {token}", "connection": "close"}
    with httpx2.Client(headers=headers) as client:
        return [client.get(f"{url}{path}").status_code for _ in range(times)]


def ask_until(url: str, token: str, status: int) -> None:
    """Send requests until three in a row, for three workers, have this status."""
    until(lambda: ask(url, token, 3) == [status] * 3, f"no three workers answer {status}")


def fill(page: Any, section: Any, summary: str, button: str, **fields: str) -> None:
    """Open a form of a section, fill it in, and send it."""
    section.get_by_text(summary, exact=True).click()
    form = section.locator("details[open] form, form").filter(has=page.get_by_role("button", name=button, exact=True))
    for label, value in fields.items():
        field = form.get_by_label(label.replace("_", " "), exact=False).first
        if field.evaluate("each => each.tagName") == "SELECT":
            field.select_option(label=value)
        else:
            field.fill(value)
    form.get_by_role("button", name=button, exact=True).click()
    page.wait_for_load_state()


def wait(condition: Callable[[], bool]) -> None:
    """Wait until something holds; the page's policy forbids what playwright has for that."""
    until(condition, "the page does not show it")


def rows_of(page: Any) -> int:
    return int(page.locator("#refusals tr").count())


def notice(page: Any) -> str:
    return str(page.locator(".notice").inner_text())


def find(watched: Watched, token: str) -> Any:
    page = watched.open("callers")
    page.get_by_label("Value").fill(token)
    page.get_by_role("button", name="Search").click()
    page.wait_for_load_state()
    assert token not in page.url
    return page


def test_a_caller_is_found_raised_and_lowered(watched: Watched) -> None:
    """By its token; the new rate is felt by all workers within seconds, and so is the lower one."""
    token = "acme-free-1"
    assert 429 in ask(watched.url, token, 80)
    page = find(watched, token)
    card = page.locator("section.card", has_text="agents")
    assert "30/minute" in card.inner_text()
    assert card.locator("meter").get_attribute("value") == "30"
    fill(page, card, "Change the rate", "Set the rate", Rate="500/minute", Holds_for="1 hour", Why="a launch")
    assert "agents is 500/minute" in notice(page)
    assert "ratelimit override set --policy agents" in notice(page)
    ask_until(watched.url, token, 200)
    assert "override 500/minute" in page.locator("section.card", has_text="agents").inner_text()
    card = page.locator("section.card", has_text="agents")
    fill(page, card, "Change the rate", "Set the rate", Rate="5/minute", Why="it was too much")
    ask_until(watched.url, token, 429)
    page.locator("section.card", has_text="agents").get_by_role("button", name="Remove the override").click()
    assert "is removed" in notice(page)


def test_a_caller_is_blocked_and_reset(watched: Watched) -> None:
    """Blocked until it is unblocked; what it has used is emptied."""
    token = "evil-free-1"
    assert 429 in ask(watched.url, token, 80)
    page = find(watched, token)
    body = page.locator("main")
    fill(page, body, "Block: 403 for every request", "Block", Why="abuse", Holds_for="1 day")
    assert "This caller is blocked" in page.locator("main").inner_text()
    ask_until(watched.url, token, 403)
    page.get_by_role("button", name="Unblock").click()
    assert "no longer blocked" in notice(page)
    ask_until(watched.url, token, 429)
    fill(page, page.locator("main"), "Reset: empty all windows and calendar quotas", "Empty all", Why="sorry")
    assert "counters" in notice(page)
    ask_until(watched.url, token, 200)


def test_a_policy_is_put_into_shadow_and_paused(watched: Watched) -> None:
    """From the overview, by one button; from its page, until a time; both end by a button."""
    token = "night-free-1"
    assert 429 in ask(watched.url, token, 80)
    page = watched.open("")
    row = page.locator("tr", has=page.get_by_role("link", name="agents", exact=True)).first
    row.get_by_role("button", name="Shadow 1 h").click()
    assert "agents: in shadow" in notice(page)
    ask_until(watched.url, token, 200)
    row = page.locator("tr", has=page.get_by_role("link", name="agents", exact=True)).first
    row.get_by_role("button", name="End").click()
    ask_until(watched.url, token, 429)
    row = page.locator("tr", has=page.get_by_role("link", name="agents", exact=True)).first
    row.get_by_role("link", name="Pause…").click()
    form = page.locator("#pause")
    form.get_by_label("Why").fill("a storm")
    form.get_by_role("button", name="Pause it").click()
    assert "agents: paused" in notice(page)
    ask_until(watched.url, token, 200)
    page.get_by_role("button", name="Enforce it again").click()
    ask_until(watched.url, token, 429)


def test_refusals_are_seen_as_they_happen(watched: Watched) -> None:
    """They come by themselves; a pause holds them back, a filter leaves others out, and a click shows the whole decision."""
    page = watched.open("live?kind=refused")
    before = rows_of(page)
    # A worker may not know for a second that the policy is no longer paused, and then counts nothing.
    assert 429 in ask(watched.url, "live-free-1", 80)
    wait(lambda: rows_of(page) > before)
    page.get_by_role("button", name="Pause").click()
    paused = rows_of(page)
    ask(watched.url, "other-free-1", 40)
    wait(lambda: "more" in page.locator("#waiting").inner_text())
    assert rows_of(page) == paused
    page.get_by_role("button", name="Go on").click()
    wait(lambda: rows_of(page) > paused)
    page.locator("#refusals tr a").first.click()
    page.locator("#drawer #decision").wait_for()
    assert "HTTP/1.1 429" in page.locator("#drawer").inner_text()
    page.get_by_label("Caller").fill("live")
    page.get_by_role("button", name="Filter").click()
    wait(lambda: set(page.locator("#refusals tr .dim").all_inner_texts()) == {"live"})
    rows = rows_of(page)
    ask(watched.url, "other-free-1", 3)
    ask(watched.url, "live-free-1", 1)
    wait(lambda: rows_of(page) > rows)
    assert set(page.locator("#refusals tr .dim").all_inner_texts()) == {"live"}


def test_a_quota_is_raised_until_a_day_and_exported(watched: Watched) -> None:
    """That of an organization, and that of a plan; the file has all of them."""
    ask(watched.url, "quota-free-1", 5)
    pause()
    page = watched.open("quotas")
    page.get_by_role("link", name="requests", exact=True).click()
    page.get_by_label("Find").fill("quota")
    page.get_by_role("button", name="Find").click()
    page.wait_for_url("**?q=quota")
    wait(lambda: page.goto(page.url) is not None and "org:quota" in page.locator("main").inner_text())
    row = page.locator("tr", has_text="org:quota")
    fill(page, row, "Raise", "Set", Allows="9000", Until_the_end="2031-01-31", Why="they paid")
    assert "requests is 9000 for org=quota" in notice(page)
    assert "--until 2031-02-01" in notice(page)
    assert "9,000" in page.locator("tr", has_text="org:quota").inner_text()
    row = page.locator("tr", has=page.get_by_role("rowheader", name="pro", exact=True))
    fill(page, row, "Raise", "Set", Allows="60000", Until_the_end="2031-01-31", Why="a campaign")
    assert "for the plan pro" in notice(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="Export CSV").click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert lines[0].startswith("caller,limit,used")
    assert [line for line in lines if line.startswith("org:quota,9000,5,")]


def test_the_overview_follows_and_leaves_open_forms_alone(browser: Any, seeded: str) -> None:
    """It is loaded again every few seconds, but for as long as somebody uses one of its buttons."""
    watched = Watched(browser, seeded)
    page = watched.open("")
    ask(seeded, "fresh-free-1", 40)
    row = "document.querySelector('#policy-1 td[data-label=Within]').textContent"
    number = page.evaluate(row)
    wait(lambda: page.evaluate(row) != number)
    page.locator("#policy-1 button").first.focus()
    page.evaluate("document.addEventListener('htmx:before:request', each => window.held = each.defaultPrevented)")
    wait(lambda: page.evaluate("window.held") is not None)
    assert page.evaluate("window.held") is True
    assert_fine(watched)
    watched.context.close()


@pytest.mark.parametrize("options", [{}, {"color_scheme": "dark", "viewport": PHONE}], ids=["desk", "phone"])
@pytest.mark.parametrize("name", PAGES)
def test_pages_are_accessible_and_fit(browser: Any, seeded: str, name: str, options: dict[str, Any]) -> None:
    """No serious fault by axe, in light and dark; nothing is wider than a phone; all forms open."""
    watched = Watched(browser, seeded, **options)
    page = watched.open(PAGES[name])
    if os.environ.get("DOCS") and f"{name}{'-phone' if options else ''}" in SHOWN:
        page.screenshot(path=PICTURES / f"console-{name}{'-phone' if options else ''}.png")
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    assert watched.accessibility_faults() == []
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    assert_fine(watched)
    watched.context.close()


def test_the_page_of_a_caller_is_accessible(browser: Any, seeded: str) -> None:
    """A caller sees what it has left, on a phone too."""
    watched = Watched(browser, seeded, viewport=PHONE, extra_http_headers={"authorization": "Bearer acme-free-1"})
    watched.page.goto(f"{seeded}/limits/")
    assert "Your limits" in watched.page.inner_text("h1")
    if os.environ.get("DOCS"):
        watched.page.screenshot(path=PICTURES / "console-own-phone.png", full_page=True)
    assert watched.accessibility_faults() == []
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    watched.context.close()


def test_it_can_be_read_and_used_without_scripts_and_by_keyboard(browser: Any, seeded: str) -> None:
    """All pages say the same; forms work; the first key leads past the navigation."""
    watched = Watched(browser, seeded, java_script_enabled=False)
    for path in PAGES.values():
        assert watched.open(path).locator("h1").count() == 1
    page = watched.open("policies/org")
    assert page.locator("svg.chart rect").count() > 10
    form = page.locator("details", has_text="Shadow")
    form.locator("summary").click()
    form.get_by_label("Why").fill("no script")
    form.get_by_role("button").click()
    assert "org: in shadow" in notice(page)
    page.get_by_role("button", name="Enforce it again").click()
    page.keyboard.press("Tab")
    assert "enforced again" in notice(page)
    watched.context.close()


def test_the_browser_refuses_what_the_policy_forbids(browser: Any, seeded: str) -> None:
    """An inline script does nothing, another origin gets no request, and no page of another site can frame the console."""
    watched = Watched(browser, seeded)
    page = watched.open("")
    page.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<img src=\"http://127.0.0.2:9/x\" onerror=\"window.hit = 1\">')"
    )
    page.evaluate(
        "const each = document.createElement('script'); each.text = 'window.hit = 2'; document.body.append(each)"
    )
    page.evaluate("fetch('http://127.0.0.2:9/y').catch(() => 0)")
    assert page.evaluate("window.hit") is None
    assert any("Content Security Policy" in each for each in watched.errors)
    framed = Watched(browser, seeded)
    framed.page.goto(f"{seeded}/v1/agents")
    framed.page.set_content(f'<iframe id="f" src="{seeded}/ratelimit/"></iframe>')
    assert "Overview" not in str(framed.page.frames[-1].evaluate("document.documentElement.innerText"))
    for each in (watched, framed):
        each.context.close()
