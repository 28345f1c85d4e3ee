"""Runnable examples: limited servers, a client that obeys limits, and paced webhooks.

Each app runs under uvicorn: `uvicorn examples.server.<name>:app`.
"""
