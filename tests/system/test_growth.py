"""Edits of storage.yaml do nothing by themselves: status tells of them, diff shows what they would change, apply does it, and df shows
that it is done, while the files stay what they are.
"""
import os
import subprocess
import sys
import time

from harness import Failed, Sandbox, need_fuse, wait_for

need_fuse()
GIB = 1 << 30


def df(box):
    r = subprocess.run(["df", "-B1", "--output=size", str(box.mount)], check=True, capture_output=True, text=True)
    return int(r.stdout.split()[-1])


def size(box):
    v = os.statvfs(box.mount)
    return v.f_blocks * v.f_frsize


with Sandbox(sys.argv[1], "growth") as box:
    box.init()
    box.edit("replace_after: 4s", "replace_after: 1h")
    box.apply()
    data = os.urandom(24 << 20)
    (box.mount / "file").write_bytes(data)
    first = box.wait_ready()
    ids = {n["id"] for n in first["nodes"]}
    before = size(box)
    assert df(box) == before and before == 2 * GIB, (df(box), before)
    assert not first["unapplied_edits"] and "unapplied" not in box.run("status").stdout

    box.edit("capacity: 2GiB", "capacity: 4GiB")
    box.edit("nodes: 6", "nodes: 8")

    # A few rounds of the monitor, and two looks at what would be done: told, and nothing else.
    rounds = time.monotonic() + 4
    while time.monotonic() < rounds:
        s = box.status()
        assert s["unapplied_edits"], s
        same = ("serial", "generation")
        assert [s.get(k) for k in same] == [first.get(k) for k in same], s
        assert {n["id"] for n in s["nodes"]} == ids and len(box.zdb_pids()) == 6, s
        assert size(box) == before
        time.sleep(0.5)
    assert "unapplied edits" in box.run("status").stdout
    plan = box.json("diff")
    kinds = [a["kind"] for a in plan["actions"]]
    assert kinds.count("create_node") == 2 and plan["summary"]["add"] == 2 and plan["summary"]["destroy"] == 0, plan
    assert plan["summary"]["usable_bytes_gained"] == 2 * GIB, plan["summary"]
    text = box.run("diff", "--detailed-exitcode", expect=2).stdout
    assert "2 GiB -> 4 GiB" in text and "storage.nodes  6 -> 8" in text and "Plan: 2 to add" in text, text
    assert box.status()["serial"] == first["serial"] and len(box.zdb_pids()) == 6, "diff changed something"

    box.apply()

    def grown():
        if df(box) == size(box) == 2 * before:
            return size(box)
        raise Failed(f"df shows {df(box)} bytes, statvfs {size(box)}, {before} before")
    after = wait_for("df to show the growth", grown, 60)
    s = box.wait_ready(redundancy=2)
    ready = {n["id"] for n in s["nodes"] if n["state"] == "ready"}
    assert ids < ready and len(ready) == 8 and len(box.zdb_pids()) == 8, s["nodes"]
    assert not s["unapplied_edits"] and "unapplied" not in box.run("status").stdout
    assert s["generation"] == first["generation"] + 1
    assert "No changes" in box.run("diff", "--detailed-exitcode", expect=0).stdout
    assert (box.mount / "file").read_bytes() == data
    box.run("cache", "drop")
    assert (box.mount / "file").read_bytes() == data, "from the nodes"
    box.run("destroy", "--confirm", "growth")
print(f"told of, shown, applied: {before / GIB:.0f} GiB before, {after / GIB:.0f} after")
