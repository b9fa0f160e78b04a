#!/usr/bin/env python3
"""qs zdb beside redis-server (appendonly yes, appendfsync no) on the same machine, in the same run, with the same driver. Prints, for
each size of value and pipeline, requests a second of both and their ratio, seconds of CPU a GB (or a million requests), and bytes written
to the disk a byte stored. redis-benchmark drives the small sizes as well, as a check of the driver; its SETs bring the same value again and again.

  bench/zdb.py PATH_OF_QS [--seconds 1] [--rounds 5] [--connections 16] [--sizes 64,4096,65536,524288,1048576] [--pipelines 1,16] [--json FILE]
               [--dir DIRECTORY] [--only qs|redis]

Hit rate 100 %: what is read was written before. Neither gives space back meanwhile (redis's rewriting and our compaction are off), and both have memory for
all of it (redis always, ours by --cache 128M; it is at most 64 MiB of values). The two take turns, every other round in the opposite order, each round with fresh servers; a figure is the median of its rounds, a
ratio the median of the rounds' ratios. Figures from a busy machine say nothing: run it alone.
"""
import argparse
import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

TICK = os.sysconf("SC_CLK_TCK")


class Server:
    def __init__(self, name, root, qs=None, flags=()):
        self.name, self.data = name, pathlib.Path(root) / name
        self.data.mkdir(mode=0o700)
        if name == "redis":
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
            self.command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.data), "--appendonly", "yes",
                            "--appendfsync", "no", "--save", "", "--daemonize", "no", "--auto-aof-rewrite-percentage", "0"]
        else:
            self.command = [qs, "zdb", "--data", str(self.data), "--port", "0", *flags]
        self.start()

    def start(self, within=20):
        """On what its directory holds; returns when it takes a connection."""
        with open(self.data.with_suffix(".log"), "wb") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + within
        while True:
            try:
                if self.name != "redis":
                    self.port = int((self.data / "endpoint").read_text().strip().rsplit(":", 1)[1])
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except (OSError, IndexError, ValueError):
                if time.monotonic() > end or self.process.poll() is not None:
                    sys.exit(f"{self.name} did not start: {self.data.with_suffix('.log').read_text()[-2000:]}")
                time.sleep(0.0005)

    def cpu(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def written(self):
        """Bytes in its files: what the page cache has still to write counts as well."""
        return sum(f.stat().st_size for f in self.data.rglob("*") if f.is_file())

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def request(*parts):
    out = b"*%d\r\n" % len(parts)
    for p in parts:
        out += b"$%d\r\n%s\r\n" % (len(p), p)
    return out


def drive(port, command, size, pipeline, keys, seed, seconds, start, result):
    """One process, some connections: on each, `pipeline` requests are sent, then all their replies read."""
    conns = []
    for _ in range(keys["connections"]):
        s = socket.create_connection(("127.0.0.1", port))
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conns.append(s)
    value = bytearray(os.urandom(size))
    sink = bytearray(1 << 20)
    rounds = 0
    start.wait()
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        wanted = []
        for c, s in enumerate(conns):
            out, expect = [], 0
            for i in range(pipeline):
                key = b"%d:%d:%d" % (seed, c, (rounds * pipeline + i) % keys["each"])
                if command == "set":
                    value[:8] = (rounds * pipeline + i + 1).to_bytes(8, "little")  # never the same twice
                    out.append(request(b"SET", key, bytes(value)))
                    expect += keys["ok"] if keys["ok"] else len(key) + len(b"$%d\r\n\r\n" % len(key))
                else:
                    out.append(request(b"GET", key))
                    expect += size + len(b"$%d\r\n\r\n" % size)
            s.sendall(b"".join(out))
            wanted.append(expect)
        for s, left in zip(conns, wanted):
            first = True
            while left > 0:
                n = s.recv_into(sink, min(left, len(sink)))
                if n == 0 or (first and sink[:1] == b"-"):
                    result.put((0, 0, "the server said: " + bytes(sink[:80]).decode(errors="replace")))
                    return
                first = False
                left -= n
        rounds += 1
    result.put((rounds * pipeline * len(conns), time.monotonic() - begin, ""))


def measure(server, command, size, pipeline, o, each):
    workers = 2
    start = multiprocessing.Event()
    result = multiprocessing.Queue()
    keys = {"connections": max(1, o.connections // workers), "each": each, "ok": 5 if server.name == "redis" else 0}
    seconds = o.seconds
    all_ = [multiprocessing.Process(target=drive, args=(server.port, command, size, pipeline, keys, w, seconds, start, result)) for w in range(workers)]
    for p in all_:
        p.start()
    time.sleep(0.1)  # connections
    cpu, disk = server.cpu(), server.written()
    start.set()
    got = [result.get(timeout=seconds + 120) for _ in all_]
    for p in all_:
        p.join()
    bad = [g[2] for g in got if g[2]]
    if bad:
        sys.exit(f"{server.name} {command} {size}: {bad[0]}")
    done = sum(g[0] for g in got)
    took = max(g[1] for g in got)
    return {"rate": done / took, "bytes": done * size / took, "cpu_per_million": (server.cpu() - cpu) / done * 1e6,
            "written_per_byte": (server.written() - disk) / (done * size) if command == "set" else None}


def redis_benchmark(server, command, size, pipeline, o):
    """Of 10,000 keys; a SET always of the same value, which is there already from the second time on."""
    n = 400_000 if pipeline > 1 else 100_000
    cpu = server.cpu()
    r = subprocess.run(["redis-benchmark", "-h", "127.0.0.1", "-p", str(server.port), "-t", command, "-n", str(n), "-c", str(o.connections), "-P",
                        str(pipeline), "-d", str(size), "-r", "10000", "--csv"], check=True, capture_output=True, text=True, timeout=300)
    cpu = server.cpu() - cpu
    for line in r.stdout.splitlines():
        cells = [c.strip('"') for c in line.split(",")]
        if cells[0] == command.upper():
            return {"rate": float(cells[1]), "cpu_per_million": cpu / n * 1e6}
    sys.exit(f"redis-benchmark said nothing of {command}: {r.stdout}")


def one_round(name, root, size, pipeline, o, each):
    """A fresh server, one at a time, so that neither pays for the other's dirty pages."""
    os.sync()
    server = Server(name, root, o.qs, ("--cache", "128M", "--compaction", "off"))
    out = {"set": measure(server, "set", size, pipeline, o, each)}
    fill(server, size, o, each)
    out["get"] = measure(server, "get", size, pipeline, o, each)
    if size <= 4096 and shutil.which("redis-benchmark"):
        for command in ("set", "get"):
            out["benchmark_" + command] = redis_benchmark(server, command, size, pipeline, o)
    server.stop()
    shutil.rmtree(server.data)
    return out


def medians(rounds):
    def median(command, figure):
        some = [r[command][figure] for r in rounds if r[command][figure] is not None]
        return statistics.median(some) if some else None
    return {command: {figure: median(command, figure) for figure in rounds[0][command]} for command in rounds[0]}


def ratio(rounds, command):
    if len(rounds) < 2:
        return None
    return statistics.median(a[command]["rate"] / b[command]["rate"] for a, b in zip(rounds["qs"], rounds["redis"]))


def shown(ratio):
    return "" if ratio is None else f"{ratio:6.2f}"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("qs")
    p.add_argument("--seconds", type=float, default=1)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--connections", type=int, default=16)
    p.add_argument("--sizes", default="64,4096,65536,524288,1048576")
    p.add_argument("--pipelines", default="1,16")
    p.add_argument("--dir")
    p.add_argument("--json")
    p.add_argument("--only", choices=("qs", "redis"))
    o = p.parse_args()
    names = [o.only] if o.only else ["qs", "redis"]
    if "redis" in names and not shutil.which("redis-server"):
        print("redis-server is not installed: qs alone, no ratios", file=sys.stderr)
        names.remove("redis")
    rows = []
    header = f"{'value':>8} {'pipe':>4} {'':>4} " + " ".join(f"{n + ' /s':>11} {'MB/s':>7} {'s CPU/M':>8} {'B/B':>5}" for n in names) + f" {'ratio':>6}"
    print(header)
    with tempfile.TemporaryDirectory(dir=o.dir, prefix="qs-bench-zdb-") as root:
        for size in map(int, o.sizes.split(",")):
            for pipeline in map(int, o.pipelines.split(",")):
                # Few enough keys that all of them are written before they are read.
                each = max(pipeline, min(1000, (64 << 20) // size // o.connections))
                rounds = {name: [] for name in names}
                for turn in range(o.rounds):
                    for name in names if turn % 2 == 0 else reversed(names):
                        rounds[name].append(one_round(name, root, size, pipeline, o, each))
                row = {"size": size, "pipeline": pipeline, **{name: medians(r) for name, r in rounds.items()}}
                rows.append(row)
                for command in ("set", "get"):
                    cells = []
                    for name in names:
                        m = row[name][command]
                        cells.append(f"{m['rate']:11.0f} {m['bytes'] / 1e6:7.0f} {m['cpu_per_million']:8.1f} "
                                     + (f"{m['written_per_byte']:5.2f}" if m["written_per_byte"] is not None else "     "))
                    row[command + "_ratio"] = ratio(rounds, command)
                    print(f"{size:>8} {pipeline:>4} {command:>4} {' '.join(cells)} {shown(row[command + '_ratio'])}", flush=True)
                for command in ("benchmark_set", "benchmark_get"):
                    if all(command in row[n] for n in names):
                        said = " ".join(f"{row[n][command]['rate']:11.0f} {'':>7} {row[n][command]['cpu_per_million']:8.1f} {'':>5}" for n in names)
                        row[command + "_ratio"] = ratio(rounds, command)
                        print(f"{'':>8} {'':>4} {command[-3:]:>4} {said} {shown(row[command + '_ratio'])}  redis-benchmark", flush=True)
    if o.json:
        pathlib.Path(o.json).write_text(json.dumps(rows, indent=1))


def fill(server, size, o, each):
    """Every key the readers ask for, as the driver names them."""
    workers = 2
    s = socket.create_connection(("127.0.0.1", server.port))
    value = os.urandom(size)
    reader = s.makefile("rb")
    for w in range(workers):
        for c in range(max(1, o.connections // workers)):
            for at in range(0, each, 64):
                some = [b"%d:%d:%d" % (w, c, i) for i in range(at, min(each, at + 64))]
                for k in some:
                    s.sendall(request(b"SET", k, value))
                    line = reader.readline()
                    if line.startswith(b"-"):
                        sys.exit(f"{server.name}: {line!r}")
                    if line.startswith(b"$") and line != b"$-1\r\n":
                        reader.read(int(line[1:]) + 2)
    s.close()


if __name__ == "__main__":
    main()
