#!/usr/bin/env python3
"""Does the libclang that bindgen will load work, and does it find the compiler's own headers?

Looks where bindgen (its clang-sys) looks, loads what it finds, and parses a file that includes
<stddef.h>, <stdbool.h>, <stdint.h> and <stdio.h> with the given clang arguments.

exit code: 0 it works; 1 no libclang that loads; 2 it loads but cannot find the headers
"""

import argparse
import ctypes
import glob
import os
import shlex
import subprocess
import sys
import tempfile

SOURCE = b"#include <stddef.h>\n#include <stdbool.h>\n#include <stdint.h>\n#include <stdio.h>\nsize_t n;\n"

LINUX = ["/usr/local/llvm*/lib*", "/usr/local/lib*/*/*", "/usr/local/lib*/*", "/usr/local/lib*",
         "/usr/lib*/*/*", "/usr/lib*/*", "/usr/lib*"]
MACOS = ["/usr/local/opt/llvm*/lib/llvm*/lib", "/Library/Developer/CommandLineTools/usr/lib",
         "/Applications/Xcode.app/Contents/Developer/Toolchains/XcodeDefault.xctoolchain/usr/lib",
         "/usr/local/opt/llvm*/lib"]
ERROR = 3  # CXDiagnostic_Error


def command_output(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def candidates():
    """The files bindgen would consider: highest version first, then the order of the folders."""
    mac = sys.platform == "darwin"
    names = ["libclang.dylib"] if mac else ["libclang.so", "libclang-*.so", "libclang.so.*", "libclang-*.so.*"]
    named = os.environ.get("LIBCLANG_PATH")
    if named and os.path.isfile(named):
        return [named]
    if named:
        folders = [named]
    else:
        folders = []
        prefix = command_output(os.environ.get("LLVM_CONFIG_PATH", "llvm-config"), "--prefix")
        if prefix:
            folders += [os.path.join(prefix, d) for d in ("bin", "lib", "lib64")]
        if mac:
            xcode = command_output("xcode-select", "--print-path")
            if xcode:
                folders.append(os.path.join(xcode, "Toolchains/XcodeDefault.xctoolchain/usr/lib"))
        folders += os.environ.get("LD_LIBRARY_PATH", "").split(":")
        folders += [d for pattern in (MACOS if mac else LINUX) for d in sorted(glob.glob(pattern))]
    found = []
    for folder in filter(None, folders):
        for name in names:
            for path in sorted(glob.glob(os.path.join(glob.escape(folder), name))):
                if "-cpp." not in os.path.basename(path) and path not in found:
                    found.append(path)
    return sorted(found, key=version, reverse=True)


def version(path):
    name = os.path.basename(path)
    if name.startswith("libclang.so."):
        text = name[len("libclang.so."):]
    elif name.startswith("libclang-"):
        text = name[len("libclang-"):].split(".so")[0]
    else:
        return []
    return [int(part) for part in text.split(".") if part.isdigit()]


def parse(path, arguments):
    """None if the library does not load, else the errors it saw."""
    try:
        lib = ctypes.CDLL(path)
    except OSError:
        return None
    pointer = ctypes.c_void_p
    lib.clang_createIndex.restype = pointer
    lib.clang_parseTranslationUnit.restype = pointer
    lib.clang_parseTranslationUnit.argtypes = [
        pointer, ctypes.c_char_p, ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, pointer, ctypes.c_uint, ctypes.c_uint]
    lib.clang_getNumDiagnostics.argtypes = [pointer]
    lib.clang_getDiagnostic.restype = pointer
    lib.clang_getDiagnostic.argtypes = [pointer, ctypes.c_uint]
    lib.clang_getDiagnosticSeverity.argtypes = [pointer]
    with tempfile.TemporaryDirectory() as folder:
        header = os.path.join(folder, "probe.h")
        with open(header, "wb") as file:
            file.write(SOURCE)
        raw = [a.encode() for a in arguments]
        unit = lib.clang_parseTranslationUnit(
            lib.clang_createIndex(0, 0), header.encode(), (ctypes.c_char_p * len(raw))(*raw), len(raw), None, 0, 0)
        if not unit:
            return 1
        return sum(lib.clang_getDiagnosticSeverity(lib.clang_getDiagnostic(unit, i)) >= ERROR
                   for i in range(lib.clang_getNumDiagnostics(unit)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quiet", action="store_true", help="say nothing, only exit")
    parser.add_argument("clang_args", nargs="*", help="arguments for clang (after --)")
    options = parser.parse_args()
    arguments = shlex.split(os.environ.get("BINDGEN_EXTRA_CLANG_ARGS", "")) + options.clang_args
    for path in candidates():
        errors = parse(path, arguments)
        if errors is None:
            continue
        if not options.quiet:
            print(f"{path}: {'works' if errors == 0 else 'does not find the C headers'}")
        return 0 if errors == 0 else 2
    if not options.quiet:
        print("no libclang that loads")
    return 1


if __name__ == "__main__":
    sys.exit(main())
