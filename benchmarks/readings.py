"""Make the readings that the part `reading` asks for, where they are not there yet.

    python benchmarks/readings.py [--quick]

About 99 million over 90 days, 2 million over 12 with `--quick`; in /var/tmp/paqett-readings, where
they stay for the next runs. Remove that folder when they are not needed any more.
"""

import argparse

from suite import archive


def main() -> None:
    """Both databases."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="2 million readings of 12 days")
    chosen = archive.QUICK if parser.parse_args().quick else archive.FULL
    with archive.opened(chosen, devices=1) as (_, end):
        print(f"{chosen.folder}: until {end}")


if __name__ == "__main__":
    main()
