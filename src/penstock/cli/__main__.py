"""`python -m penstock.cli`: the same where no script is installed, or it is not on the path."""

from penstock.cli.main import main

if __name__ == "__main__":
    main()
