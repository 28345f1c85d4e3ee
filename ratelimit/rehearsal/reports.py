"""Reports of a replay: Markdown for a pull request, and one page of HTML with pictures, which needs nothing else."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from ratelimit.rehearsal.replay import CallerTally
from ratelimit.rehearsal.result import ReplayResult, instant_text

_WIDTH, _HEIGHT, _COLUMNS = 900, 180, 150
_BARS: Final = 12
_LONGEST: Final = 80

POLICY_COLUMNS: Final = ("policy", "checks", "refused", "in shadow", "longest wait")
"""The columns of the table of policies, in each kind of report."""

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1c2733;--dim:#66727f;--line:#d8dee5;--page:#fff;--served:#7aa6c9;--refused:#c8452d}
@media (prefers-color-scheme:dark){:root{--ink:#e4e9ee;--dim:#93a0ad;--line:#33404d;--page:#141b22;--served:#4f7fa6;--refused:#e2694f}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:940px;margin:2em auto;padding:0 1em}
h1{font-size:1.5em;margin-bottom:.2em}h2{font-size:1.1em;margin-top:2em}
.sum{font-size:1.15em}.dim{color:var(--dim)}.bad{color:var(--refused)}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.25em .8em .25em 0;border-bottom:1px solid var(--line)}
.n{text-align:right;font-variant-numeric:tabular-nums}svg{width:100%;height:auto;display:block}text{fill:var(--dim);font-size:12px}
.s{fill:var(--served)}.r{fill:var(--refused)}code{overflow-wrap:anywhere}
"""


def wait_text(seconds: float | None) -> str:
    """Return a wait as reports show it; `None`: waiting does not help."""
    return "never" if seconds is None else "-" if not seconds else f"{seconds:,.1f} s"


def headline(result: ReplayResult) -> str:
    """Return the result in a sentence."""
    tally = result.tally
    share = tally.refused / tally.requests if tally.requests else 0.0
    callers = sum(each.refused > 0 for each in tally.callers.values())
    text = (
        f"{tally.refused:,} of {tally.requests:,} requests ({share:.2%}) would be refused, of {callers:,} of "
        f"{len(tally.callers):,} callers"
    )
    if result.refused_at_once is not None:
        text += f"; {result.refused_at_once:,} if all requests of a second came at once"
    today = "by the limits of today" if result.is_compared else "in the log"
    return (
        f"{text}. {tally.newly_refused:,} of them ({result.newly_refused_share:.2%}) are served {today}; {tally.newly_admitted:,} "
        f"that are refused {today} would be served."
    )


def policy_rows(result: ReplayResult) -> list[list[str]]:
    """Return a row for each policy, for `POLICY_COLUMNS`."""
    return [
        [name, f"{each.checks:,}", f"{each.refused:,}", f"{each.shadow:,}", wait_text(each.longest_wait)]
        for name, each in sorted(result.tally.policies.items())
    ]


def markdown(result: ReplayResult, budget: float | None = None) -> str:
    """Return the result for a pull request, with whether it keeps to the budget."""
    lines = ["## Rehearsal of rate limits", "", headline(result), ""]
    if budget is not None:
        kept = result.newly_refused_share <= budget
        state = "kept" if kept else "**exceeded**"
        lines += [f"Budget of {budget:.2%} newly refused requests: {state}.", ""]
    lines += _table(POLICY_COLUMNS, policy_rows(result))
    lines += _hit_table("caller", result.worst_callers(10))
    lines += _hit_table("route", result.worst_routes(10))
    lines += [f"* `{each['policy']}` was not rehearsed: {each['why']}." for each in result.not_rehearsed]
    lines += [f"* {note}." for note in result.notes]
    return "\n".join(lines).rstrip() + "\n"


def _hit_table(kind: str, rows: Sequence[tuple[str, CallerTally]]) -> list[str]:
    if not rows:
        return []
    return _table(
        [kind, "requests", "refused", "newly", "first", "longest wait"],
        [
            [
                _code(name),
                f"{each.requests:,}",
                f"{each.refused:,}",
                f"+{each.newly_refused:,} −{each.newly_admitted:,}",
                instant_text(each.first_refused) or "-",
                wait_text(each.longest_wait),
            ]
            for name, each in rows
        ],
    )


def _code(name: str) -> str:
    """Return a name as code in a cell of a table, on one line; what would end either is replaced."""
    text = name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…"
    return f"`{text.replace('`', chr(39)).replace('|', chr(92) + '|')}`"


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def html(result: ReplayResult, title: str = "Rehearsal of rate limits") -> str:
    """Return the result as one page: no script, nothing from elsewhere."""
    tally = result.tally
    span = f"{instant_text(result.counts.first)} – {instant_text(result.counts.last)}"
    parts = [
        f"<h1>{escape(title)}</h1><p class=dim>{escape(span)}, {result.counts.lines:,} lines</p>",
        f"<p class=sum>{escape(headline(result))}</p>",
        "<h2>Requests over time</h2>" + timeline(tally.minutes),
        "<h2>Policies</h2>" + _html_table(POLICY_COLUMNS, policy_rows(result)),
        _html_hits("Callers, the worst first", "caller", result.worst_callers()),
        _html_hits("Routes, the worst first", "route", result.worst_routes()),
        _html_notes(result),
    ]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
    return (
        f'<!doctype html><html lang="en"><head>{head}<title>{escape(title)}</title><style>{_STYLE}</style></head>'
        f"<body>{''.join(parts)}</body></html>\n"
    )


def timeline(minutes: Mapping[int, Sequence[int]]) -> str:
    """Return a picture of served and refused requests over time, as SVG."""
    if not minutes:
        return "<p class=dim>no requests</p>"
    first, last = min(minutes), max(minutes)
    step = max(1, -(-(last - first + 1) // _COLUMNS))
    columns = [[0, 0] for _ in range((last - first) // step + 1)]
    for minute, (requests, refused) in minutes.items():
        column = columns[(minute - first) // step]
        column[0] += requests
        column[1] += refused
    most, width = max(requests for requests, _ in columns), _WIDTH / len(columns)
    bars = []
    for number, (requests, refused) in enumerate(columns):
        at, served, bad = number * width, _HEIGHT * (requests - refused) / most, _HEIGHT * refused / most
        bars.append(_bar(at, _HEIGHT - served, width, served, "s"))
        bars.append(_bar(at, _HEIGHT - served - bad, width, bad, "r"))
    labels = (
        f'<text x="0" y="{_HEIGHT + 16}">{instant_text(first * 60_000_000)}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT + 16}" text-anchor="end">{instant_text(last * 60_000_000)}</text>'
        f'<text x="0" y="-6">{most:,} in {step} min; red: refused</text>'
    )
    return f'<svg viewBox="0 -22 {_WIDTH} {_HEIGHT + 44}" role="img" aria-label="requests over time">{"".join(bars)}{labels}</svg>'


def _bar(x: float, y: float, width: float, height: float, kind: str) -> str:
    if not height:
        return ""
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{max(0.5, width - 0.6):.1f}" height="{height:.1f}"/>'


def _html_hits(title: str, kind: str, rows: Sequence[tuple[str, CallerTally]]) -> str:
    if not rows:
        return f"<h2>{title}</h2><p class=dim>none would be refused</p>"
    names = [kind, "requests", "refused", "share", "newly refused", "first", "longest wait"]
    cells = [
        [
            name[:_LONGEST],
            f"{each.requests:,}",
            f"{each.refused:,}",
            f"{each.refused / each.requests:.1%}",
            f"{each.newly_refused:,}",
            instant_text(each.first_refused) or "-",
            wait_text(each.longest_wait),
        ]
        for name, each in rows
    ]
    return f"<h2>{title}</h2>" + _hit_bars(rows[:_BARS]) + _html_table(names, cells)


def _hit_bars(rows: Sequence[tuple[str, CallerTally]]) -> str:
    """Return a picture of the refused requests of each, as SVG."""
    most = max((each.refused for _, each in rows), default=0)
    if not most:
        return ""
    bars = []
    for number, (name, each) in enumerate(rows):
        y = number * 20
        bars.append(f'<text x="255" y="{y + 13}" text-anchor="end">{escape(name[:38])}</text>')
        bars.append(_bar(262, y + 2, 560 * each.refused / most, 14, "r"))
        bars.append(f'<text x="{268 + 560 * each.refused / most:.0f}" y="{y + 13}">{each.refused:,}</text>')
    return f'<svg viewBox="0 0 {_WIDTH} {20 * len(rows) + 4}" role="img" aria-label="refused requests">{"".join(bars)}</svg>'


def _html_notes(result: ReplayResult) -> str:
    notes = [
        f"<b>{escape(each['policy'])}</b> was not rehearsed: {escape(each['why'])}" for each in result.not_rehearsed
    ]
    notes += [escape(note) for note in result.notes]
    lines = [f"unreadable: <code>{escape(line)}</code>" for line in result.counts.unreadable_lines]
    if not notes and not lines:
        return ""
    return "<h2>To know</h2><ul>" + "".join(f"<li>{each}</li>" for each in [*notes, *lines]) + "</ul>"


def _html_table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th{' class=n' * (place > 0)}>{escape(name)}</th>" for place, name in enumerate(names))
    body = "".join(
        "<tr>"
        + "".join(f"<td{' class=n' * (place > 0)}>{escape(cell)}</td>" for place, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
