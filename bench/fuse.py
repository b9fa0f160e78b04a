#!/usr/bin/env python3
"""Compares mounted file systems with libfuse's own passthrough_ll, in one run on one machine.

    bench/fuse.py --mount qs=/mnt/archive [--mount other=/mnt/x] [--drop qs='qs cache drop'] [--json]

passthrough_ll is compiled from libfuse3-dev's examples and mounted over a directory beside --scratch (same disk as the volume's log,
please). Every job runs on each mount right after the other, in turns of --runs rounds (every other one in the opposite order), and
each round gives a ratio of its own: what is printed are medians, and the lowest and highest ratio of a round. A machine's speed may
change by a factor within a minute; of two runs seconds apart less. Before every job what the ones before left to do in the background
is finished (sync, and every mount's --settle command); before each reading job the kernel's caches are dropped (needs root) and the
mount's --drop command is run. A ratio above 1 is better than passthrough_ll; exit code 1 if a median is below --floor. Nothing
outside a directory of its own is touched in a mount.
"""
import argparse
import contextlib
import gzip
import json
import mmap
import os
import pathlib
import shutil
import statistics
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


def busy():
    """Share of the processors that did something in the next half second."""
    def look():
        fields = [int(f) for f in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]
    before = look()
    time.sleep(0.5)
    after = look()
    return 1 - (after[1] - before[1]) / max(1, after[0] - before[0])


def settle(commands, quiet_within=20):
    """Also what nobody tells of, such as deleting what was removed, is over when the machine is quiet."""
    subprocess.check_call(["sync"])
    for command in commands:
        if command:
            subprocess.check_call(command, shell=True, stdout=subprocess.DEVNULL)
    end = time.monotonic() + quiet_within
    while busy() > 0.1 and time.monotonic() < end:
        pass


def drop_caches(own):
    """The kernel's, and a mount's own."""
    subprocess.check_call(["sync"])
    if own:
        subprocess.check_call(own, shell=True, stdout=subprocess.DEVNULL)
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


class Side:
    """One mount in one round: a directory of its own, gone afterwards."""

    def __init__(self, mount, drop):
        self.drop = drop
        self.place = pathlib.Path(tempfile.mkdtemp(prefix="qs-bench-", dir=mount))
        self.big, self.small = self.place / "big", self.place / "small"
        self.big.mkdir()
        self.small.mkdir()

    def remove(self):
        shutil.rmtree(self.place, ignore_errors=True)


def jobs(options):
    """(what, whether caches are dropped before it, what it does on a side); all figures are 'more is better'. In this order: each works
    on what the ones before left."""
    size, seconds, count = options.size * MIB, options.seconds, options.files

    def of_files(action):
        return lambda side: timed(action, side.small, count)

    return [
        ("sequential write, MiB/s", False, lambda side: fio(side.big, "write", "1M", size, 0)[0] / MIB),
        ("sequential read, MiB/s", True, lambda side: fio(side.big, "read", "1M", size, 0)[0] / MIB),
        ("random 4 KiB read, 1/s", True, lambda side: fio(side.big, "randread", "4k", size, seconds)[1]),
        ("random 4 KiB write, 1/s", False, lambda side: fio(side.big, "randwrite", "4k", size, seconds)[1]),
        ("create 1 KiB files, 1/s", False, of_files(create)),
        ("stat, 1/s", True, of_files(stat)),
        ("read 1 KiB files, 1/s", True, of_files(read)),
        ("walk, 1/s", True, of_files(walk)),
        ("unlink, 1/s", False, of_files(unlink)),
    ]


def one_round(mounts, settling, drops, options, backwards):
    """Figures by mount and job."""
    figures = {name: {} for name in mounts}
    sides = {}
    try:
        for name, mount in mounts.items():
            sides[name] = Side(mount, drops.get(name))
        order = list(reversed(sides)) if backwards else list(sides)
        for job, cold, run in jobs(options):
            for name in order:
                settle(settling)
                if cold:
                    drop_caches(sides[name].drop)
                elif "write" in job:
                    warm_memory()
                figures[name][job] = run(sides[name])
    finally:
        for side in sides.values():
            side.remove()
    return figures


def compare(rounds, base, name):
    """Of one mount: the median ratio of each job, and the lowest and highest of a round."""
    out = {"ratios": {}, "lowest": {}, "highest": {}}
    for job in rounds[0][base]:
        ratios = [figures[name][job] / figures[base][job] for figures in rounds]
        out["ratios"][job] = statistics.median(ratios)
        out["lowest"][job], out["highest"][job] = min(ratios), max(ratios)
    return out


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
    parser.add_argument("--runs", type=int, default=5, help="rounds")
    parser.add_argument("--floor", type=float, default=0.0, help="exit 1 if a median ratio is below")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    mounts, drops, settles = pairs(options.mount, "--mount"), pairs(options.drop, "--drop"), pairs(options.settle, "--settle")
    with passthrough(options.scratch, options.writeback) as base:
        every = {"passthrough_ll": str(base), **mounts}
        rounds = [one_round(every, settles.values(), drops, options, r % 2 == 1) for r in range(options.runs)]
    figures = {name: {job: statistics.median(r[name][job] for r in rounds) for job in rounds[0][name]} for name in every}
    against = {name: compare(rounds, "passthrough_ll", name) for name in mounts}
    ratios = {name: compared["ratios"] for name, compared in against.items()}
    if options.json:
        ends = {end: {name: compared[end] for name, compared in against.items()} for end in ("lowest", "highest")}
        print(json.dumps({"figures": figures, "ratios": ratios, **ends, "rounds": rounds}, indent=2))
    else:
        print(f"{'':26}{'passthrough_ll':>15}" + "".join(f"{name:>12}{'ratio':>7}  of a round" for name in mounts))
        for job in figures["passthrough_ll"]:
            row = f"{job:26}{figures['passthrough_ll'][job]:15,.0f}"
            for name, compared in against.items():
                row += f"{figures[name][job]:12,.0f}{compared['ratios'][job]:7.2f}  {compared['lowest'][job]:.2f} – {compared['highest'][job]:.2f}"
            print(row)
    low = [f"{name}: {job}" for name, jobs in ratios.items() for job, ratio in jobs.items() if ratio < options.floor]
    if low:
        sys.exit("below the floor: " + "; ".join(low))


if __name__ == "__main__":
    main()
