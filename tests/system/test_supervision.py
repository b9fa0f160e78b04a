"""The engine, its watcher and the client: whichever is killed, at whatever moment, the volume is served again; start and restart
answer when it is; what nobody goes on with is said at once."""
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time

from harness import Failed, Sandbox, need_fuse, wait_for

need_fuse()
seed = int(os.environ.get("QS_SEED", random.randrange(1 << 30)))
print(f"seed {seed}")
chance = random.Random(seed)


def watchers(box):
    return [pid for pid, argv in box.processes() if "--watch" in argv]


def engines(box):
    return [pid for pid, argv in box.processes() if len(argv) > 1 and argv[1] == "run" and "--watch" not in argv]


def served(box):
    """The engine says so, not the kernel's cache of a dead mount."""
    return box.status()["mount"]["mounted"] and (box.mount / "kept").read_text() == "kept"


with Sandbox(sys.argv[1], "watch") as box:
    box.init()

    # The client alone is killed during apply; the engine goes on, and the same command ends the same.
    for _ in range(3):
        client = subprocess.Popen([box.qs, "apply", "--auto-approve"], cwd=box.work, env=box.env, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.02, 2.0))  # the moment of the kill, not a wait for anything
        client.kill()
        client.wait()
    box.apply()
    s = box.wait_ready()
    assert len([n for n in s["nodes"] if n["state"] == "ready"]) == 6, s["nodes"]
    dirs = [d for d in (box.root / "grid" / "nodes").iterdir() if d.is_dir()]
    assert len(dirs) == 6, f"leaked reservations: {dirs}"
    assert float(s["wallet"]["per_month"]) > 0, s["wallet"]
    (box.mount / "kept").write_text("kept")

    # The watcher alone, then the engine: both come back. Twice, so that a watcher that took over is lost as well.
    for _ in range(2):
        [watcher] = watchers(box)
        engine = box.engine_pid()
        os.kill(watcher, signal.SIGKILL)
        [after] = wait_for("another watcher", lambda: [w for w in watchers(box) if w != watcher], 30)
        assert box.engine_pid() == engine and served(box), "the engine was restarted for nothing"
        os.kill(engine, signal.SIGKILL)
        wait_for("the engine and the mount to be back", lambda: box.engine_pid() != engine and served(box), 60)
        assert watchers(box) == [after]
    # An engine whose watcher took over is stopped in order, and nobody starts it again.
    [watcher] = watchers(box)
    os.kill(watcher, signal.SIGKILL)
    wait_for("another watcher", lambda: [w for w in watchers(box) if w != watcher], 30)
    box.run("stop")
    wait_for("nothing but nodes", lambda: not watchers(box) and not engines(box), 30)

    # Somebody else has the grid for longer than the next engine waits: exit 5 is no reason to give up.
    box.run("start")
    [watcher] = watchers(box)
    with open(box.root / "grid" / "lock", "a") as grid:
        fcntl.flock(grid, fcntl.LOCK_EX)
        os.kill(engines(box)[0], signal.SIGKILL)
        log = box.root / "state" / "qs" / box.name / "qs.log"
        wait_for("an engine that gave up", lambda: "the engine ended with code 5" in log.read_text(), 60)
    wait_for("the mount to be back", lambda: served(box), 90)
    assert watchers(box) == [watcher]
    box.run("stop")

    # Both at once: the next command starts them. When start answers, the files are there.
    box.run("start")
    assert os.path.ismount(box.mount) and served(box)
    for pid in watchers(box) + engines(box):
        os.kill(pid, signal.SIGKILL)
    wait_for("both to be gone", lambda: not watchers(box) and not engines(box), 30)
    box.run("start")
    assert served(box)
    # SIGTERM to a watcher that took over stops the engine in order.
    [watcher] = watchers(box)
    os.kill(watcher, signal.SIGKILL)
    [after] = wait_for("another watcher", lambda: [w for w in watchers(box) if w != watcher], 30)
    wait_for("it to take signals", lambda: int(next(l for l in open(f"/proc/{after}/status") if l.startswith("SigCgt")).split()[1], 16) >> 14 & 1)
    os.kill(after, signal.SIGTERM)
    wait_for("nothing but nodes", lambda: not watchers(box) and not engines(box), 60)

    # restart: answered when the mount is there; 4 with the reason when it cannot be.
    box.run("start")
    for _ in range(2):
        box.run("restart")
        assert (box.mount / "kept").read_text() == "kept", "restart answered before the mount was back"
        assert box.status()["mount"]["mounted"]
    box.run("stop")
    (box.mount / "in-the-way").write_text("x")
    r = box.run("start", expect=4)
    assert "not empty" in r.stderr, r.stderr
    (box.mount / "in-the-way").unlink()
    wait_for("the mount, once it can be", lambda: served(box), 30)

    # Suspended: apply says so at once; nothing is begun; files are there, also after a restart; stopped nodes stay stopped.
    box.run("suspend")
    box.edit("nodes: 6", "nodes: 7")
    begun = time.monotonic()
    r = box.run("apply", "--auto-approve", expect=5)
    assert "qs resume" in r.stderr, r.stderr
    assert time.monotonic() - begun < 60, "apply waited for what nobody does"
    box.run("restart")
    assert served(box) and box.status()["state"] == "Suspended"
    box.run("grid", "down")
    time.sleep(3)  # three rounds of the monitor in which nothing may happen
    assert not box.zdb_pids(), "a suspended engine started nodes"
    box.run("resume")
    wait_for("seven nodes", lambda: len([n for n in box.status()["nodes"] if n["state"] == "ready"]) == 7, 90)
    box.wait_ready(redundancy=2)

    # --cancel: what is in flight ends, the rest is not begun; the file as it was before takes it back.
    assert "nothing to cancel" in box.run("apply", "--cancel").stderr
    box.edit("nodes: 7", "nodes: 16")
    client = subprocess.Popen([box.qs, "apply", "--auto-approve"], cwd=box.work, env=box.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
    wait_for("the plan to be accepted", lambda: len(box.status()["nodes"]) > 7, 60, 0.02)
    said = box.json("apply", "--cancel")
    out, _ = client.communicate(timeout=60)
    if said["cancelled"]:
        assert client.returncode == 5 and "cancelled" in out, (client.returncode, out)
        before = [n["state"] for n in box.status()["nodes"]].count("planned")
        print(f"cancelled with {before} nodes not begun")
        time.sleep(3)  # several passes in which nothing may begin
        s = box.status()
        assert s["under_way"] == 0 and [n["state"] for n in s["nodes"]].count("planned") == before, s["nodes"]
    box.edit("nodes: 16", "nodes: 7")
    box.apply()
    box.wait_ready(redundancy=2)
    wait_for("seven nodes again", lambda: sorted(n["state"] for n in box.status()["nodes"]) == ["ready"] * 7, 90)
    assert (box.mount / "kept").read_text() == "kept"
    kinds = [json.loads(l)["kind"] for l in box.run("events", "--json", "-n", "1000").stdout.splitlines()]
    assert "Cancelled" in kinds or not said["cancelled"], kinds
    box.run("destroy", "--confirm", "watch")
    wait_for("nothing left", lambda: not box.processes() and not box.mounts(), 30)
print("whichever was killed, the volume was served again")
