"""The command line `ratelimit`: checks settings, explains requests, and operates limits while the app runs."""
