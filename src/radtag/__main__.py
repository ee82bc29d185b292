"""`python -m radtag` is the command `radtag`."""

from radtag.cli import main

if __name__ == "__main__":
    main()
