"""The vertical cut in small: init, validate, diff, apply, a tree through the mount, two nodes die, replaced, destroy."""
import os
import pathlib
import stat
import subprocess
import sys

from harness import Failed, Sandbox, copy_tree, need_fuse, same_tree, wait_for

need_fuse()
with Sandbox(sys.argv[1], "main") as box:
    box.init()
    box.run("validate")
    plan = box.json("diff")
    kinds = [a["kind"] for a in plan["actions"]]
    assert plan["summary"]["add"] >= 7, plan["summary"]
    assert box.run("diff", "--detailed-exitcode", expect=2)
    assert not box.processes(), "diff started something"
    assert not (box.root / "state").exists() or not list((box.root / "state").rglob("state.db")), "diff wrote state"

    box.apply()
    s = box.status()
    assert s["state"] == "Ready" and s["mount"]["mounted"], s
    assert len(box.zdb_pids()) == 6, box.zdb_pids()
    assert os.path.ismount(box.mount)

    # The fixpoint: applied once, nothing is left to do.
    again = box.run("diff", "--detailed-exitcode", expect=0)
    assert "No changes" in again.stdout, again.stdout

    files, links, total = copy_tree("/usr/include", box.root / "source", 12_000_000)
    subprocess.run(["cp", "-a", str(box.root / "source"), str(box.mount / "tree")], check=True)
    assert not same_tree(box.root / "source", box.mount / "tree")

    box.wait_ready()
    ids = [n["id"] for n in s["nodes"]]
    before = box.status()["volume"]
    for n in ids[:2]:
        box.run("grid", "kill", "--wipe", n)
    box.run("cache", "drop")
    wrong = same_tree(box.root / "source", box.mount / "tree")
    assert not wrong, wrong[:2000]
    after = box.status()["volume"]
    assert after["node_read_bytes"] - before["node_read_bytes"] >= before["used_bytes"], (before, after)
    assert after["decoded_bytes"] > before["decoded_bytes"], (before, after)

    def replaced():
        now = box.status()
        ready = {n["id"] for n in now["nodes"] if n["state"] == "ready"}
        if len(ready) == 6 and not ready & set(ids[:2]) and now["volume"]["redundancy_left_min"] == 2 and now["state"] == "Ready":
            return now
        raise Failed(str(now))
    wait_for("two replacements and a full rebuild", replaced, 120)

    phrase = next((box.root / "config").rglob("phrase"))
    assert stat.S_IMODE(phrase.stat().st_mode) == 0o600
    box.run("destroy", "--confirm", "main")
    wait_for("nothing left", lambda: not box.processes() and not box.mounts(), 30)
    assert phrase.exists(), "destroy must leave the words alone"
print(f"{files} files, {links} links, {total} bytes; two nodes lost and replaced")
