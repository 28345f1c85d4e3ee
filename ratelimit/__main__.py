"""`python -m ratelimit`, and the program `ratelimit`."""

import sys


def main() -> None:
    """Run the command line; without its libraries, say how to install them."""
    try:
        import click  # noqa: F401, PLC0415 - an extra
        import rich  # noqa: F401, PLC0415
    except ImportError:
        sys.stderr.write("ratelimit: the command line needs more libraries: pip install 'ratelimit-asgi[cli]'\n")
        sys.exit(2)
    from ratelimit.cli.main import cli  # noqa: PLC0415

    cli(prog_name="ratelimit")


if __name__ == "__main__":
    main()
