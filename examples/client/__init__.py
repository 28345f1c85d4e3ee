"""A client that obeys the limits of a server, and that server."""
