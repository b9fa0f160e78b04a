#!/usr/bin/env python3
"""What a node that stands still costs writers: one of six nodes of a 4+2 volume is stopped (SIGSTOP), and is not replaced.

    bench/away.py QS [--dir DIRECTORY] [--rounds N] [--seconds N] [--json FILE]

In turns: all nodes there, then one of them stopped, for so many seconds each, and once more with all there at the end. Files of 256 MiB
are written with an fsync each, and only the two newest are kept. A turn with a node stopped is compared with the mean of the turns
before and after it; the first ten seconds, in which nobody knows yet that the node will not answer, and the rest apart. --dir is
/dev/shm unless told, so that a disk that slows down under steady writing is not what is measured (8 GiB are needed).
"""
import argparse
import json
import os
import pathlib
import shutil
import signal
import statistics
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "system"))
sys.dont_write_bytecode = True
from harness import Sandbox, need_fuse, wait_for  # noqa: E402

MIB = 1 << 20
FILE = 256 * MIB
FIRST = 10  # seconds
NEEDED = 8 << 30


class Writer:
    def __init__(self, directory):
        self.directory, self.number, self.data = directory, 0, os.urandom(4 * MIB)

    def one(self):
        path = self.directory / f"away-{self.number}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            for _ in range(FILE // len(self.data)):
                left = memoryview(self.data)
                while left:
                    left = left[os.write(fd, left):]
            os.fsync(fd)
        finally:
            os.close(fd)
        if self.number >= 2:
            (self.directory / f"away-{self.number - 2}").unlink()
        self.number += 1

    def turn(self, seconds):
        """Bytes a second in the first ten seconds and in the rest, each over whole files."""
        rates, began, part, files = [], time.monotonic(), 0.0, 0
        for end in (min(FIRST, seconds), seconds):
            while time.monotonic() - began < end:
                self.one()
                files += 1
            took = time.monotonic() - began - part
            if files:
                rates.append(files * FILE / took)
            part, files = time.monotonic() - began, 0
        return rates


def whole(box):
    """Everything is on the nodes and has its full redundancy; dead bytes are gone from them."""
    box.wait_ready(timeout=300, redundancy=2)


def measure(options):
    with Sandbox(options.qs, "away") as box:
        box.init(capacity="32GiB")
        box.edit("replace_after: 4s", "replace_after: 1h")
        box.apply()
        box.wait_ready()
        wait_for("the mount", lambda: os.path.ismount(box.mount))
        writer, node = Writer(box.mount), next(iter(box.zdb_pids()))
        writer.one()
        there, away = [], []
        for _ in range(options.rounds):
            whole(box)
            there.append(statistics.mean(writer.turn(options.seconds)))
            whole(box)
            os.kill(node, signal.SIGSTOP)
            try:
                away.append(writer.turn(options.seconds))
            finally:
                os.kill(node, signal.SIGCONT)
        whole(box)
        there.append(statistics.mean(writer.turn(options.seconds)))
        box.run("destroy", "--confirm", "away")
    ratios = [[rate / statistics.mean(there[i:i + 2]) for rate in turn] for i, turn in enumerate(away)]
    return {"there": there, "away": away, "ratios": ratios}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("qs", type=lambda p: str(pathlib.Path(p).resolve()))
    parser.add_argument("--dir", default="/dev/shm")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=25)
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is cleaned up
    need_fuse()
    if shutil.disk_usage(options.dir).free < NEEDED:
        sys.exit(f"{options.dir} has less than 8 GiB free: give another --dir")
    tempfile.tempdir = os.environ["TMPDIR"] = options.dir
    result = measure(options)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2))
    print(f"{'':10}{'all there':>12}{'first 10 s':>12}{'ratio':>7}{'then':>10}{'ratio':>7}   MiB/s, one of six nodes stopped")
    for i, (turn, ratio) in enumerate(zip(result["away"], result["ratios"])):
        pairs = "".join(f"{rate / MIB:{w}.0f}{r:7.2f}" for rate, r, w in zip(turn, ratio, (12, 10)))
        print(f"round {i + 1:<4}{statistics.mean(result['there'][i:i + 2]) / MIB:12.0f}{pairs}")


if __name__ == "__main__":
    main()
