"""The same publisher as everywhere here, with messages of another form.

    python -m suite.rivals.fleet collectd

Takes its job as `paqett.local.flood` does, and prints the same.
"""

import sys

from paqett.local import flood
from suite.rivals import forms


def main() -> None:
    """The publisher looks its packets up by name when it makes them."""
    if sys.argv[1] != forms.PAQETT:
        forms.OtherPackets.form = sys.argv[1]
        flood.Packets = forms.OtherPackets
    flood.main()


if __name__ == "__main__":
    main()
