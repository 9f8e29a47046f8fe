"""`python -m ops` is `switchboard`."""

from ops.cli import main

if __name__ == "__main__":
    main()
