"""The edge: everything that knows HTTP, ASGI and Starlette."""
