"""`slot-controller`: keeps signals from its first instant on, then loads and runs the controller."""

from controller.signals import keep


def main() -> None:
    """Run until SIGTERM or SIGINT; exit status 0 after a clean stop, 1 after a failure, 2 for bad settings."""
    keep()
    from controller.process import run  # noqa: PLC0415 - not before signals are kept

    run()


if __name__ == "__main__":
    main()
