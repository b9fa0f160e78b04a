#!/usr/bin/env python3
"""The main job of qs, with the real program in a temporary directory: make demo.

From storage.yaml to a mounted, encrypted file system on six real storage nodes; nodes die and are replaced; the engine is
killed and comes back; the volume grows; everything is cleaned up. Each step prints what it shows and how long it took.
"""
import hashlib
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "system"))
from harness import Failed, Sandbox, copy_tree, need_fuse, same_tree, wait_for  # noqa: E402

LIMIT = int(os.environ.get("DEMO_BYTES", 300_000_000))
number = 0


class step:
    def __init__(self, title):
        global number
        number += 1
        self.title = title

    def __enter__(self):
        print(f"\n\033[1m{number}. {self.title}\033[0m" if sys.stdout.isatty() else f"\n{number}. {self.title}", flush=True)
        self.started = time.monotonic()

    def __exit__(self, kind, value, trace):
        if kind is None:
            print(f"   done in {time.monotonic() - self.started:.1f} s", flush=True)


def say(text):
    for line in text.rstrip("\n").splitlines():
        print(f"   {line}", flush=True)


def mib(n):
    return f"{n / 2**20:.1f} MiB"


def counters(box):
    v = box.status()["volume"]
    return v["node_read_bytes"], v["decoded_bytes"], v["used_bytes"]


def kill_two_and_read(box, source, nodes):
    """Kills nodes with their data, drops every cache, and reads the whole tree back from what is left."""
    box.wait_ready()
    read_before, decoded_before, used = counters(box)
    for n in nodes:
        box.run("grid", "kill", "--wipe", n)
        say(f"qs grid kill --wipe {n}: SIGKILL, then its data deleted")
    box.run("cache", "drop")
    wrong = same_tree(source, box.mount / "tree")
    if wrong:
        raise Failed(f"the tree reads back differently:\n{wrong[:2000]}")
    read_after, decoded_after, _ = counters(box)
    say(f"diff -r is silent; {mib(read_after - read_before)} came from the nodes ({mib(used)} are stored), "
        f"{mib(decoded_after - decoded_before)} of it out of parity")
    if read_after - read_before < used or decoded_after <= decoded_before:
        raise Failed("the bytes did not come from the nodes")


def wait_whole(box, lost):
    def whole():
        s = box.status()
        v = s["volume"]
        ids = {n["id"] for n in s["nodes"] if n["state"] == "ready"}
        if s["state"] == "Ready" and v["redundancy_left_min"] == 2 and v["bytes_at_risk"] == 0 and not ids & set(lost) and len(ids) >= 6:
            return s
        raise Failed(f"{s['state']}, redundancy left {v['redundancy_left_min']}, at risk {v['bytes_at_risk']}, ready {sorted(ids)}, "
                     f"rebuild pending {v['rebuild_pending']}")
    s = wait_for("both nodes replaced and everything rebuilt", whole, 180, 0.2)
    say(f"Ready; nodes now {', '.join(n['id'] for n in s['nodes'])}; {s['volume']['redundancy_left_min']} more may be lost, "
        "counted from confirmed shards")


def main(qs):
    need_fuse()
    with Sandbox(qs, "demo") as box:
        source = box.root / "source"
        with step("qs init: storage.yaml and the 24 words"):
            shown = box.init("--show-words", capacity="2GiB")
            words = [w for w in shown.stdout.split() if w.isalpha() and w.islower()]
            say(box.spec.read_text().split("\n\nmount:")[0])
            say(f"…\nand 24 words, kept in {box.root}/config/qs/demo/phrase (0600)")
            if len(words) < 24:
                raise Failed("init did not show the words")
        with step("qs validate, qs diff, qs apply: six storage nodes, the volume, the mount"):
            box.run("validate")
            say(box.run("diff").stdout)
            box.apply(timeout=120)
            say(box.run("nodes").stdout)
            if not os.path.ismount(box.mount):
                raise Failed("the mount is not there")
        with step("a real tree goes in and compares equal"):
            files = links = total = 0
            for d in ("/usr/include", "/usr/share/doc"):
                f, l, t = copy_tree(d, source / os.path.basename(d), LIMIT - total)
                files, links, total = files + f, links + l, total + t
            started = time.monotonic()
            subprocess.run(["cp", "-a", str(source), str(box.mount / "tree")], check=True)
            seconds = time.monotonic() - started
            say(f"cp -a: {files} files, {links} links, {mib(total)} in {seconds:.1f} s ({files / seconds:.0f} files/s)")
            wrong = same_tree(source, box.mount / "tree")
            if wrong:
                raise Failed(wrong[:2000])
            say("diff -r --no-dereference: no difference")
        ids = [n["id"] for n in box.status()["nodes"]]
        with step("two of six nodes die with their data; every cache dropped; everything reads back"):
            kill_two_and_read(box, source, ids[:2])
        with step("the engine notices, replaces both and rebuilds what they held"):
            wait_whole(box, ids[:2])
        with step("two other nodes die: the rebuild was real"):
            kill_two_and_read(box, source, ids[2:4])
            wait_whole(box, ids[2:4])
        with step("storage.yaml is edited: more capacity, two more nodes"):
            before = os.statvfs(box.mount)
            box.edit("capacity: 2GiB", "capacity: 4GiB")
            box.edit("nodes: 6", "nodes: 8")
            if not box.status()["unapplied_edits"]:
                raise Failed("status does not tell of the edits")
            say(next(l for l in box.run("status").stdout.splitlines() if "unapplied" in l))
            say(box.run("diff").stdout)
            box.apply(timeout=180)
            after = wait_for("df to show it", lambda: (lambda v: v if v.f_blocks * v.f_frsize > before.f_blocks * before.f_frsize * 1.5 else None)(os.statvfs(box.mount)), 120)
            say(f"df: {mib(before.f_blocks * before.f_frsize)} before, {mib(after.f_blocks * after.f_frsize)} now")
        with step("kill -9 of the engine while files are copied: it comes back, nothing answered is lost"):
            crash_engine(box)
        with step("kill -9 of a node while files are written: nobody notices"):
            crash_node(box)
        with step("qs status, qs nodes, qs destroy"):
            say(box.run("status").stdout)
            say(box.run("nodes").stdout)
            box.run("destroy", "--confirm", "demo", timeout=180)
            left = wait_for("nothing left", lambda: "nothing" if not box.processes() and not box.mounts() else None, 30)
            say(f"{left} left running, {left} left mounted")
    print("\nall of it worked")


def crash_engine(box):
    target = box.mount / "crash"
    target.mkdir()
    answered = []
    stop = threading.Event()

    def writer():
        n = 0
        while not stop.is_set():
            try:
                data = hashlib.sha256(str(n).encode()).digest() * (1 + n % 2000)
                with open(target / f"{n:06d}", "wb") as f:
                    f.write(data)
                answered.append((n, len(data), hashlib.sha256(data).hexdigest()))
                n += 1
            except OSError:
                if stop.wait(0.1):
                    return

    t = threading.Thread(target=writer, daemon=True)
    t.start()
    wait_for("a few hundred files", lambda: len(answered) > 300, 60)
    pid = box.engine_pid()
    os.kill(pid, signal.SIGKILL)
    at_kill = len(answered)
    started = time.monotonic()
    wait_for("the engine and the mount to be back", lambda: box.engine_pid() != pid and box.status()["mount"]["mounted"], 60)
    say(f"engine {pid} killed after {at_kill} files; engine and mount back after {time.monotonic() - started:.1f} s by themselves")
    wait_for("more files", lambda: len(answered) > at_kill + 100, 60)
    stop.set()
    t.join()
    for n, size, digest in answered:
        data = (target / f"{n:06d}").read_bytes()
        if len(data) != size or hashlib.sha256(data).hexdigest() != digest:
            raise Failed(f"file {n} was answered and is not what was written ({len(data)} of {size} bytes)")
    names = sorted(os.listdir(target))
    if names != [f"{n:06d}" for n in range(len(names))] or len(names) > len(answered) + 1:
        raise Failed(f"{len(names)} files, {len(answered)} answered: something is missing before something that came later")
    say(f"all {len(answered)} files that were answered are there, byte by byte, none before one that is missing")


def crash_node(box):
    before = {n["id"]: n.get("host") for n in box.wait_ready()["nodes"]}
    victim, argv = next(iter(box.zdb_pids().items()))
    data = os.urandom(1 << 20)
    digest = hashlib.sha256()
    worst = 0.0
    with open(box.mount / "through", "wb") as f:
        for i in range(64):
            if i == 16:
                os.kill(victim, signal.SIGKILL)
            started = time.monotonic()
            f.write(data)
            f.flush()
            digest.update(data)
            worst = max(worst, time.monotonic() - started)
    back = hashlib.sha256((box.mount / "through").read_bytes())
    if back.digest() != digest.digest():
        raise Failed("what was written through the node's death reads back differently")
    say(f"node process {victim} killed in the middle of 64 MiB; slowest write {worst * 1000:.0f} ms, no error, reads back equal")
    s = box.wait_ready(redundancy=2)
    if {n["id"]: n.get("host") for n in s["nodes"]} != before:
        raise Failed(f"nodes changed: {before} before, {s['nodes']} after")
    say(f"its process runs again, nothing moved: nodes {', '.join(n['id'] for n in s['nodes'])}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: demo.py PATH_OF_QS")
    began = time.monotonic()
    try:
        main(sys.argv[1])
    except Failed as e:
        sys.exit(f"\nFAILED: {e}")
    print(f"{time.monotonic() - began:.0f} s in all")
