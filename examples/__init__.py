"""Apps that show what can be limited, and how; each runs with `uvicorn examples.<name>:app`."""
