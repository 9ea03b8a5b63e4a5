#!/usr/bin/env python3
"""Look for bytes that the payload decoder or the topic parser cannot bear; `make fuzz` runs it.

    FUZZ_TARGET=payload tests/fuzz/fuzz.py FOLDER … [libFuzzer's options]

New ways through the code go into the first folder; what breaks something is written to
`-artifact_prefix`, and shown again where the file is given instead of a folder. The target is no
argument, since libFuzzer starts the script again with arguments of its own.
"""

import os
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

with atheris.instrument_imports(include=["paqett.readings", "paqett.ingest.batcher"]):
    import fuzzed

if __name__ == "__main__":
    atheris.Setup(sys.argv, fuzzed.TARGETS[os.environ["FUZZ_TARGET"]])
    atheris.Fuzz()
