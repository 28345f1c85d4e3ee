"""Hints: what a command line most likely lacks; they go to stderr, and change nothing."""

from rich.text import Text

from ratelimit.cli.output import console
from ratelimit.config.policies import Policy
from ratelimit.limiter import Limiter
from ratelimit.model.identity import Identity


def hint(message: str) -> None:
    """Print a hint to stderr."""
    console(stderr=True).print(Text(f"ratelimit: {message}", style="yellow"))


def hint_at_missing_org(limiter: Limiter, identity: Identity) -> None:
    """Say that counters of a token lie with its organization, where a token was named alone and organizations count."""
    if identity.token and not identity.org and limiter.resolver.named.counts_by("org"):
        hint("the counters of a token lie with its organization: name it too (--org), or they are not found")


def hint_at_unknown(limiter: Limiter, identity: Identity) -> None:
    """Say that a plan is named by no policy, which is most likely a spelling mistake."""
    plans = {plan for policy in limiter.settings.policies for plan in _plans(policy)}
    if identity.plan and plans and identity.plan not in plans:
        hint(f"no policy names the plan {identity.plan!r}; they name {', '.join(sorted(plans))}")


def _plans(policy: Policy) -> list[str]:
    return list(policy.by_plan)
