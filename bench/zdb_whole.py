#!/usr/bin/env python3
"""What bench/zdb.py does not show of qs zdb, each a figure of docs/zdb.md:

  small    from the start to the first answer, and memory of an idle server, with an empty directory and with 1,000 keys (medians of eleven)
  dd       1 MiB values SET over 4 connections and one SYNC, beside `dd bs=1M conv=fdatasync` on the same disk
  boot     the start after SIGKILL with so many keys (--keys, default 10,000,000), and memory a key
  tenants  the answers of a quiet tenant (64-byte SETs, one a time, pipeline 1) alone, and beside one that floods with SETs, with SETs and SYNCs, with KSCANs
  spaces   so many namespaces (--spaces, default 10,000) made, written and deleted, half of it while a tenant works: its answers, memory, descriptors

  bench/zdb_whole.py PATH_OF_QS [--only small,dd,boot,tenants,spaces] [--keys N] [--spaces N] [--dir DIRECTORY] [--json FILE]

Figures from a busy machine say nothing: run it alone.
"""
import argparse
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from zdb import Server, request


class Client:
    def __init__(self, port):
        self.s = socket.create_connection(("127.0.0.1", port))
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.r = self.s.makefile("rb")

    def reply(self):
        line = self.r.readline()
        if not line or line.startswith(b"-"):
            raise RuntimeError(f"the server said {line!r}")
        if line.startswith(b"$") and line != b"$-1\r\n":
            return self.r.read(int(line[1:]) + 2)[:-2]
        return line

    def do(self, *parts):
        self.s.sendall(request(*parts))
        return self.reply()

    def close(self):
        self.r.close()
        self.s.close()


def proc(server, field):
    for line in pathlib.Path(f"/proc/{server.process.pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return 0


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def bench_small(o, root):
    out = {}
    for keys in (0, 1000):
        server = Server("qs", root, o.qs)
        c = Client(server.port)
        for i in range(keys):
            c.do(b"SET", b"key:%d" % i, b"v" * 64)
        c.close()
        server.stop()
        ms, anon = [], []
        for _ in range(11):
            begin = time.monotonic()
            server.start()
            c = Client(server.port)
            c.do(b"PING")
            ms.append((time.monotonic() - begin) * 1e3)
            c.close()
            anon.append(proc(server, "RssAnon"))
            server.stop()
        shutil.rmtree(server.data)
        out[f"{keys} keys"] = {"start_ms": statistics.median(ms), "rss_anon_mib": statistics.median(anon) / (1 << 20)}
    return out


def bench_dd(o, root):
    total = 1024
    target = pathlib.Path(root) / "dd.out"
    os.sync()
    begin = time.monotonic()
    subprocess.run(["dd", "if=/dev/zero", f"of={target}", "bs=1M", f"count={total}", "conv=fdatasync"], check=True, stderr=subprocess.DEVNULL)
    dd = total / (time.monotonic() - begin)
    target.unlink()
    os.sync()
    server = Server("qs", root, o.qs)

    def work(n, failed):
        try:
            c = Client(server.port)
            value = bytearray(os.urandom(1 << 20))
            for i in range(total // 4):
                value[:8] = i.to_bytes(8, "little")
                c.do(b"SET", b"%d:%d" % (n, i), bytes(value))
            c.do(b"SYNC")
            c.close()
        except Exception as e:
            failed.append(e)

    failed = []
    begin = time.monotonic()
    threads = [threading.Thread(target=work, args=(n, failed)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    took = time.monotonic() - begin
    server.stop()
    shutil.rmtree(server.data)
    if failed:
        raise failed[0]
    return {"dd_mib_s": dd, "set_and_sync_mib_s": total / took, "ratio": total / took / dd}


def bench_boot(o, root):
    server = Server("qs", root, o.qs)
    c = Client(server.port)
    before = proc(server, "RssAnon")
    value = b"v" * 64
    at_once = 1000
    begin = time.monotonic()
    for at in range(0, o.keys, at_once):
        c.s.sendall(b"".join(request(b"SET", b"key:%09d" % i, value) for i in range(at, min(o.keys, at + at_once))))
        for _ in range(min(o.keys, at + at_once) - at):
            c.reply()
    wrote = time.monotonic() - begin
    c.do(b"SYNC")
    c.close()
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    (server.data / "endpoint").unlink()
    out = {"keys": o.keys, "written_in_s": wrote}
    for name, cold in (("warm", False), ("cold", True)):
        if cold:
            os.sync()
            try:
                pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
            except OSError as e:
                print(f"no cold start measured: {e}", file=sys.stderr)
                continue
        begin = time.monotonic()
        server.start(within=300)
        c = Client(server.port)
        assert int(c.do(b"DBSIZE")[1:]) == o.keys
        c.close()
        out[f"{name}_s"] = time.monotonic() - begin
        out["bytes_a_key"] = (proc(server, "RssAnon") - before) / o.keys
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        (server.data / "endpoint").unlink()
    shutil.rmtree(server.data)
    return out


FLOODS = {
    "alone": None,
    "SET": lambda i: b"".join(request(b"SET", b"f%d" % (i * 64 + j), b"x" * 4096) for j in range(64)),
    "SET and SYNC": lambda i: b"".join(request(b"SET", b"f%d" % (i * 16 + j), b"x" * 4096) + request(b"SYNC") for j in range(16)),
    "KSCAN": lambda i: b"".join(request(b"KSCAN", b"f") for j in range(4)),
    "MGET": lambda i: request(b"MGET", *(b"m%d" % j for j in range(60))),  # of 1 MiB
}


def flood(port, make, stop):
    s = socket.create_connection(("127.0.0.1", port))
    s.sendall(request(b"SELECT", b"loud"))
    threading.Thread(target=lambda: [None for _ in iter(lambda: s.recv(1 << 20), b"")], daemon=True).start()
    i = 0
    try:
        while not stop.is_set():
            s.sendall(make(i))
            i += 1
    except OSError:
        pass
    s.close()


def answers(port, seconds):
    c = Client(port)
    c.do(b"SELECT", b"quiet")
    took = []
    end = time.monotonic() + seconds
    i = 0
    while time.monotonic() < end:
        begin = time.perf_counter()
        c.do(b"SET", b"q%d" % (i % 1000), b"%064d" % i)
        took.append(time.perf_counter() - begin)
        i += 1
    c.close()
    return {"rate": len(took) / seconds, "p50_ms": percentile(took, 0.5) * 1e3, "p99_ms": percentile(took, 0.99) * 1e3, "max_ms": max(took) * 1e3}


def bench_tenants(o, root):
    out = {}
    for name, make in FLOODS.items():
        server = Server("qs", root, o.qs)
        c = Client(server.port)
        c.do(b"NSNEW", b"quiet")
        c.do(b"NSNEW", b"loud")
        c.do(b"SELECT", b"loud")
        for i in range(2000):
            c.do(b"SET", b"f%d" % i, b"x" * 100)
        for i in range(60 if name == "MGET" else 0):
            c.do(b"SET", b"m%d" % i, os.urandom(1 << 20))
        c.close()
        stop = threading.Event()
        # Programs of their own: one interpreter would measure its own lock.
        floods = []
        if make:
            for _ in range(8):
                pid = os.fork()
                if pid == 0:
                    signal.alarm(60)
                    flood(server.port, make, stop)
                    os._exit(0)
                floods.append(pid)
            time.sleep(0.5)
        try:
            out[name] = answers(server.port, 3)
        finally:
            for pid in floods:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        server.stop()
        shutil.rmtree(server.data)
    return out


def bench_spaces(o, root):
    server = Server("qs", root, o.qs)
    c = Client(server.port)
    c.do(b"NSNEW", b"quiet")
    out = {"spaces": o.spaces}
    begin = time.monotonic()
    for i in range(o.spaces):
        c.do(b"NSNEW", b"t%d" % i)
    out["made_s"] = time.monotonic() - begin
    for i in range(o.spaces):
        c.do(b"SELECT", b"t%d" % i)
        c.do(b"SET", b"k", b"x" * 1000)
    out["rss_anon"] = proc(server, "RssAnon")
    out["descriptors"] = len(os.listdir(f"/proc/{server.process.pid}/fd"))
    c.do(b"SELECT", b"default")
    deleted = []

    def delete():
        d = Client(server.port)
        for i in range(o.spaces):
            d.do(b"NSDEL", b"t%d" % i)
            if i % 2 == 0:
                d.do(b"NSNEW", b"u%d" % i)
        deleted.append(time.monotonic())
        d.close()

    begin = time.monotonic()
    t = threading.Thread(target=delete)
    t.start()
    out["beside"] = answers(server.port, 3)
    t.join()
    if not deleted:
        raise RuntimeError("the namespaces were not deleted")
    out["deleted_s"] = deleted[0] - begin
    c.do(b"SELECT", b"quiet")
    out["left"] = o.spaces // 2 + o.spaces % 2
    c.close()
    server.stop()
    shutil.rmtree(server.data)
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("qs")
    p.add_argument("--only", default="small,dd,boot,tenants,spaces")
    p.add_argument("--keys", type=int, default=10_000_000)
    p.add_argument("--spaces", type=int, default=10_000)
    p.add_argument("--dir")
    p.add_argument("--json")
    o = p.parse_args()
    result = {}
    with tempfile.TemporaryDirectory(dir=o.dir, prefix="qs-bench-zdb-") as root:
        for name in o.only.split(","):
            result[name] = {"small": bench_small, "dd": bench_dd, "boot": bench_boot, "tenants": bench_tenants, "spaces": bench_spaces}[name](o, root)
            print(name, json.dumps(result[name], indent=1), flush=True)
    if o.json:
        pathlib.Path(o.json).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
