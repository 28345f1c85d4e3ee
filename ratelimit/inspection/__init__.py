"""Looks at settings, requests and servers, and changes nothing: explanations, findings, differences, checks of a server.

`explain` tells what a request would be answered, and why.
"""

from ratelimit.inspection.explanation import Explanation, explain

__all__ = ["Explanation", "explain"]
