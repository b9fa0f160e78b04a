"""What happens to nodes, and what must not follow from it (control.md, 5)."""
import os
import pathlib
import shutil
import signal
import sys

from harness import Failed, Sandbox, need_fuse, wait_for

need_fuse()


def node_dir(argv):
    return pathlib.Path(argv[argv.index("--data") + 1])


def states(box):
    return {n["id"]: n["state"] for n in box.status()["nodes"]}


def condition(s, kind):
    return next((c for c in s["conditions"] if c["type"] == kind), {"status": "?"})


with Sandbox(sys.argv[1], "trouble") as box:
    box.init()
    box.apply()
    (box.mount / "file").write_bytes(os.urandom(3 << 20))
    box.wait_ready()
    ids = sorted(states(box))

    # SIGKILL of a node alone: restarted, nothing moved.
    pid, argv = next(iter(box.zdb_pids().items()))
    os.kill(pid, signal.SIGKILL)
    wait_for("the node's process to run again", lambda: len(box.zdb_pids()) == 6 and pid not in box.zdb_pids(), 30)
    box.wait_ready(redundancy=2)
    assert sorted(states(box)) == ids, states(box)

    # Four of six stopped: nothing is changed, nobody knows, and all is well afterwards.
    before = box.status()
    stopped = list(box.zdb_pids())[:4]
    for p in stopped:
        os.kill(p, signal.SIGSTOP)
    try:
        def unknown():
            s = box.status()
            if condition(s, "Quorum")["status"] == "Unknown":
                return s
            raise Failed(str(s["conditions"]))
        wait_for("Quorum=Unknown", unknown, 40)
        # Longer than failed_after + replace_after: still nothing.
        import time
        end = time.monotonic() + 12
        while time.monotonic() < end:
            s = box.status()
            assert sorted(n["id"] for n in s["nodes"]) == ids and s["serial"] == before["serial"], s
            time.sleep(0.5)
    finally:
        for p in stopped:
            os.kill(p, signal.SIGCONT)
    box.wait_ready(redundancy=2)
    assert sorted(states(box)) == ids, states(box)

    # SIGKILL and the files deleted behind our back: found out, counted as lost, rebuilt elsewhere.
    pid, argv = next(iter(box.zdb_pids().items()))
    os.kill(pid, signal.SIGKILL)
    shutil.rmtree(node_dir(argv))

    def replaced():
        now = states(box)
        s = box.status()
        if len([x for x in now.values() if x == "ready"]) == 6 and sorted(now) != ids and s["volume"]["redundancy_left_min"] == 2:
            return now
        raise Failed(str(now))
    now = wait_for("the lost node to be replaced", replaced, 90)
    ready = {n for n, state in now.items() if state == "ready"}
    assert len(set(ids) & ready) == 5, (ids, now)
    kinds = [e["kind"] for e in map(__import__("json").loads, box.run("events", "--json").stdout.splitlines())]
    assert "NodeLost" in kinds and "NodeReplaced" in kinds, kinds
    box.run("destroy", "--confirm", "trouble")
print("killed: restarted; stopped: nothing changed; deleted: replaced")
