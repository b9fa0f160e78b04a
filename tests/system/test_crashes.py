"""kill -9 of the engine at odd moments: what was answered is there, in order, and the same command ends the same."""
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time

from harness import Failed, Sandbox, need_fuse, wait_for

need_fuse()
ROUNDS = int(os.environ.get("QS_CRASH_ROUNDS", 5))
seed = int(os.environ.get("QS_SEED", random.randrange(1 << 30)))
print(f"seed {seed}")
chance = random.Random(seed)

with Sandbox(sys.argv[1], "crash") as box:
    box.init()
    killed = 0
    # apply, killed: both the client and the engine, or a node that was just made, at a random moment; then the same command again.
    for victims in ("node", "client and engine", "node", "client and engine", "client and engine"):
        client = subprocess.Popen([box.qs, "apply", "--auto-approve"], cwd=box.work, env=box.env, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if victims == "node":
            made = wait_for("a node, or the end", lambda: list(box.zdb_pids()) or client.poll() is not None, 60, 0.01)
            time.sleep(chance.uniform(0, 0.3))  # the moment of the kill, not a wait for anything
            if made is not True:
                try:
                    os.kill(made[0], signal.SIGKILL)
                    killed += 1
                except ProcessLookupError:
                    pass
            client.wait(120)  # whatever it says: the same command again ends the same
            continue
        time.sleep(chance.uniform(0.05, 1.5))  # the moment of the kill, not a wait for anything
        client.kill()
        client.wait()
        for pid, argv in box.processes():
            if argv[1] != "zdb":
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
    box.apply()
    box.wait_ready()
    s = box.status()
    assert len([n for n in s["nodes"] if n["state"] == "ready"]) == 6, s["nodes"]
    wait_for("no process too many", lambda: len(box.zdb_pids()) == 6, 30)
    assert killed > 0, "no node was there to be killed"
    dirs = [d for d in (box.root / "grid" / "nodes").iterdir() if d.is_dir()]
    assert len(dirs) == 6, f"leaked reservations: {dirs}"

    target = box.mount / "files"
    target.mkdir()
    answered = {}
    order = []
    for round_number in range(ROUNDS):
        stop = threading.Event()
        count = len(order)

        def writer():
            n = len(order)
            while not stop.is_set():
                data = hashlib.sha256(f"{seed}.{n}".encode()).digest() * chance.choice((1, 40, 700, 5000))
                name = f"{n:06d}"
                try:
                    with open(target / name, "wb") as f:
                        f.write(data)
                    answered[name] = hashlib.sha256(data).hexdigest()
                    order.append(name)
                    n += 1
                except OSError:
                    stop.wait(0.05)

        t = threading.Thread(target=writer, daemon=True)
        t.start()
        wait_for("some files", lambda: len(order) > count + chance.randrange(20, 200), 60)
        pid = box.engine_pid()
        os.kill(pid, signal.SIGKILL)
        # A dead mount still answers from the kernel's cache: it is the new engine that says when its own is there.
        wait_for("the engine and the mount to be back", lambda: box.engine_pid() != pid and box.status()["mount"]["mounted"], 60)
        count = len(order)
        wait_for("files after it", lambda: len(order) > count + 20, 60)
        stop.set()
        t.join()
        for name, digest in answered.items():
            got = hashlib.sha256((target / name).read_bytes()).hexdigest()
            if got != digest:
                raise Failed(f"round {round_number}: {name} was answered and reads back differently")
    present = {p.name for p in target.iterdir()}
    assert set(answered) <= present, sorted(set(answered) - present)[:5]
    box.wait_ready(redundancy=2)
    box.run("cache", "drop")
    for name, digest in answered.items():
        assert hashlib.sha256((target / name).read_bytes()).hexdigest() == digest, name
    box.run("destroy", "--confirm", "crash")
print(f"{len(answered)} answered files over {ROUNDS} kills, every byte there, from the nodes too")
