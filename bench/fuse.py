#!/usr/bin/env python3
"""Compares mounted file systems with libfuse's own passthrough_ll, in one run on one machine.

    bench/fuse.py --mount qs=/mnt/archive [--mount other=/mnt/x] [--drop qs='qs cache drop'] [--json]

passthrough_ll is compiled from libfuse3-dev's examples and mounted over a directory beside --scratch (same disk as the volume's log,
please). Every job runs on each mount in turn, --runs times, and the best run counts. Before every job what the one before left to
do in the background is finished (sync, and the mount's --settle command); before each reading job the kernel's caches are dropped
(needs root) and the mount's --drop command is run. A ratio above 1 is better than
passthrough_ll; exit code 1 if one is below --floor. Nothing outside a directory of its own is touched in a mount.
"""
import argparse
import contextlib
import gzip
import json
import mmap
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

EXAMPLES = pathlib.Path("/usr/share/doc/libfuse3-dev/examples")
MIB = 1 << 20


def compile_passthrough(into):
    """The example as Debian ships it, packed or not."""
    for name in ("passthrough_ll.c", "passthrough_helpers.h"):
        plain, packed = EXAMPLES / name, EXAMPLES / (name + ".gz")
        if packed.exists():
            (into / name).write_bytes(gzip.decompress(packed.read_bytes()))
        elif plain.exists():
            shutil.copy(plain, into / name)
        else:
            sys.exit(f"{plain} is not there: install libfuse3-dev")
    flags = subprocess.check_output(["pkg-config", "fuse3", "--cflags", "--libs"], text=True).split()
    binary = into / "passthrough_ll"
    subprocess.check_call(["cc", "-O2", "-o", str(binary), str(into / "passthrough_ll.c"), *flags])
    return binary


@contextlib.contextmanager
def passthrough(scratch, writeback):
    with tempfile.TemporaryDirectory(prefix="qs-bench-", dir=scratch) as place:
        place = pathlib.Path(place)
        binary = compile_passthrough(place)
        source, mount = place / "source", place / "mnt"
        source.mkdir()
        mount.mkdir()
        options = f"source={source}" + (",writeback" if writeback else "")
        server = subprocess.Popen([str(binary), "-f", "-o", options, str(mount)], stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 10
            while not os.path.ismount(mount):
                if server.poll() is not None or time.monotonic() > deadline:
                    sys.exit("passthrough_ll does not mount")
                time.sleep(0.02)
            yield mount
        finally:
            subprocess.call(["fusermount3", "-u", "-z", str(mount)])
            server.wait(timeout=20)


def warm_memory():
    """Touches memory and gives it back. A virtual machine gets its memory from the host at first touch, and loses what it freed for a
    while; the job that comes first after that would pay several times what the others pay, and the more memory, the more."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with mmap.mmap(-1, min(4 << 30, free // 2 // MIB * MIB)) as memory:
        piece = b"1" * MIB
        for _ in range(len(memory) // MIB):
            memory.write(piece)


def settle(commands):
    subprocess.check_call(["sync"])
    for command in commands:
        if command:
            subprocess.check_call(command, shell=True, stdout=subprocess.DEVNULL)


def drop_caches(commands):
    settle(commands)
    try:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError as problem:
        sys.exit(f"cannot drop the kernel's caches ({problem}): run this as root")


def fio(directory, rw, block, size, seconds):
    arguments = ["fio", "--output-format=json", "--ioengine=psync", f"--name={rw}", f"--directory={directory}", "--filename=data",
                 f"--rw={rw}", f"--bs={block}", f"--size={size}", "--fallocate=none", "--invalidate=0", "--randseed=7"]
    if "write" in rw:
        arguments.append("--end_fsync=1")
    if seconds:
        arguments += ["--time_based", f"--runtime={seconds}"]
    out = json.loads(subprocess.check_output(arguments, text=True))
    job = out["jobs"][0]
    side = job["write" if "write" in rw else "read"]
    elapsed = job["job_runtime"] / 1000  # with the fsync at the end
    return side["io_bytes"] / elapsed, side["total_ios"] / elapsed


def names(directory, count):
    return [os.path.join(directory, f"d{i % 20:02}", f"file-{i:05}") for i in range(count)]


def create(directory, count):
    for i in range(min(20, count)):
        os.mkdir(os.path.join(directory, f"d{i:02}"))
    data = os.urandom(1024)
    for name in names(directory, count):
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(fd, data)
        os.close(fd)


def stat(directory, count):
    for name in names(directory, count):
        os.stat(name)


def read(directory, count):
    for name in names(directory, count):
        fd = os.open(name, os.O_RDONLY)
        if len(os.read(fd, 4096)) != 1024:
            sys.exit(f"{name} does not have 1 KiB")
        os.close(fd)


def walk(directory, count):
    seen = 0
    for _, _, files in os.walk(directory):
        seen += len(files)
    if seen != count:
        sys.exit(f"{directory} shows {seen} files of {count}")


def unlink(directory, count):
    for name in names(directory, count):
        os.unlink(name)


def timed(action, directory, count):
    begin = time.perf_counter()
    action(directory, count)
    return count / (time.perf_counter() - begin)


def measure(mount, settling, drop, options):
    """Figures of one round, by job; all are 'more is better'."""
    figures = {}
    place = pathlib.Path(tempfile.mkdtemp(prefix="qs-bench-", dir=mount))
    try:
        big, small = place / "big", place / "small"
        big.mkdir()
        small.mkdir()
        size = options.size * MIB
        warm_memory()
        figures["sequential write, MiB/s"] = fio(big, "write", "1M", size, 0)[0] / MIB
        drop_caches((settling, drop))
        figures["sequential read, MiB/s"] = fio(big, "read", "1M", size, 0)[0] / MIB
        drop_caches((settling, drop))
        figures["random 4 KiB read, 1/s"] = fio(big, "randread", "4k", size, options.seconds)[1]
        settle((settling,))
        warm_memory()
        figures["random 4 KiB write, 1/s"] = fio(big, "randwrite", "4k", size, options.seconds)[1]
        count = options.files
        settle((settling,))
        figures["create 1 KiB files, 1/s"] = timed(create, small, count)
        drop_caches((settling, drop))
        figures["stat, 1/s"] = timed(stat, small, count)
        drop_caches((settling, drop))
        figures["read 1 KiB files, 1/s"] = timed(read, small, count)
        drop_caches((settling, drop))
        figures["walk, 1/s"] = timed(walk, small, count)
        settle((settling,))
        figures["unlink, 1/s"] = timed(unlink, small, count)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return figures


def best(rounds):
    return {job: max(figures[job] for figures in rounds) for job in rounds[0]}


def pairs(values, what):
    out = {}
    for value in values:
        name, separator, rest = value.partition("=")
        if not separator:
            sys.exit(f"{what} takes NAME=…, not {value}")
        out[name] = rest
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mount", action="append", default=[], metavar="NAME=DIR", help="a mounted file system to measure")
    parser.add_argument("--settle", action="append", default=[], metavar="NAME=COMMAND", help="returns when that mount has nothing left to do")
    parser.add_argument("--drop", action="append", default=[], metavar="NAME=COMMAND", help="empties that mount's own caches")
    parser.add_argument("--scratch", default=tempfile.gettempdir(), help="where passthrough_ll keeps its files")
    parser.add_argument("--writeback", action="store_true", help="passthrough_ll with writeback (where the other has it on)")
    parser.add_argument("--size", type=int, default=512, help="MiB of the big file")
    parser.add_argument("--seconds", type=int, default=5, help="of each random job")
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--floor", type=float, default=0.0, help="exit 1 if a ratio is below")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    mounts, drops, settles = pairs(options.mount, "--mount"), pairs(options.drop, "--drop"), pairs(options.settle, "--settle")
    with passthrough(options.scratch, options.writeback) as base:
        every = {"passthrough_ll": str(base), **mounts}
        rounds = {name: [] for name in every}
        for _ in range(options.runs):
            for name, mount in every.items():  # in turn, so that a slow minute hits all of them
                settle(settles.values())  # what the last one left behind is not this one's to pay
                rounds[name].append(measure(mount, settles.get(name), drops.get(name), options))
    figures = {name: best(r) for name, r in rounds.items()}
    against = figures["passthrough_ll"]
    ratios = {name: {job: own[job] / against[job] for job in own} for name, own in figures.items() if name != "passthrough_ll"}
    if options.json:
        print(json.dumps({"figures": figures, "ratios": ratios}, indent=2))
    else:
        print(f"{'':26}{'passthrough_ll':>15}" + "".join(f"{name:>14}{'ratio':>8}" for name in ratios))
        for job in against:
            row = f"{job:26}{against[job]:15,.0f}"
            row += "".join(f"{figures[name][job]:14,.0f}{ratios[name][job]:8.2f}" for name in ratios)
            print(row)
    low = [f"{name}: {job}" for name, jobs in ratios.items() for job, ratio in jobs.items() if ratio < options.floor]
    if low:
        sys.exit("below the floor: " + "; ".join(low))


if __name__ == "__main__":
    main()
