"""`python -m cdcrep`: the same program as `cdcrep`."""

from cdcrep.cli import main

main()
