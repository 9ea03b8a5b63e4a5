"""`python -m paqett` is `paqett`."""

from paqett.cli import main

raise SystemExit(main())
