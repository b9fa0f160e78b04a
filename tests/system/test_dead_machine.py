"""Machines that never come back (docs/grid-hosts.md). A silent one refuses the making of a volume and is named; a dead one's replaced
node is given up by a person's word; a destroy names what it cannot delete, and ends without it only by that word: exit 4, with what
to delete by hand, and nothing left running or mounted.
"""
import json
import os
import signal
import sys
import time

from harness import Failed, Sandbox, need_fuse, wait_for
from machines import Lab

need_fuse()
QS = sys.argv[1]


def write_spec(box, lab, parity, data):
    entries = "\n".join(f"    - {m.entry()}" for m in lab.machines.values())
    box.spec.write_text(f"""version: 1
name: {box.name}
grid:
  hosts:
{entries}
storage:
  capacity: 1GiB
  redundancy: {{data: {data}, parity: {parity}}}
  protect: false
mount:
  path: {box.mount}
monitor: {{interval: 1s, failed_after: 3s, replace_after: 4s}}
""")
    box.run("key", "new", box.name)


def engine_processes(box):
    return [argv for _, argv in box.processes() if argv[1] != "zdb"]


def nothing_left(box):
    wait_for("no engine and no mount", lambda: not engine_processes(box) and not box.mounts(), 60)
    assert not any((box.root / "state").rglob("state.db")), "a destroyed volume left its record"


# -- stopped for good: it takes connections and answers nothing ---------------------------------------------------------------
with Sandbox(QS, "three") as box, Lab(box) as lab:
    for name in ("nas", "attic", "office"):
        lab.add(name, netns=False)
    nas = lab["nas"]
    write_spec(box, lab, parity=1, data=2)

    # A new volume is made only when every machine has said that it is not there.
    os.kill(nas.server.pid, signal.SIGSTOP)
    for command in (["diff"], ["apply", "--auto-approve"]):
        r = box.run(*command, expect=5)
        said = r.stdout + r.stderr
        assert "nas" in said and "take it out of" in said and "attic" not in said, said
    wait_for("no engine to be left of a refused apply", lambda: not engine_processes(box), 30)
    os.kill(nas.server.pid, signal.SIGCONT)
    assert not lab.by_namespace()
    box.apply(timeout=120)
    box.wait_ready(redundancy=1)
    (box.mount / "file").write_bytes(os.urandom(4 << 20))
    box.wait_ready(redundancy=1)
    [space] = nas.namespaces()

    os.kill(nas.server.pid, signal.SIGSTOP)
    r = box.run("destroy", "--confirm", "three", "--timeout", "45s", expect=5, timeout=200)
    assert "nas" in r.stderr and "qs destroy --abandon" in r.stderr, r.stderr
    assert not box.mounts()
    for m in (lab["attic"], lab["office"]):
        assert not m.namespaces(), f"{m.name} still has something"
    box.run("destroy", "--abandon", expect=64)  # the word wants the name again
    # The engine is killed on the way: what is recorded is enough.
    os.kill(box.engine_pid(), signal.SIGKILL)
    wait_for("the engine to be back", lambda: box.engine_pid() > 0, 60)
    begun = time.monotonic()
    r = box.run("destroy", "--confirm", "three", "--abandon", "--json", expect=4, timeout=300)
    print(f"given up after {time.monotonic() - begun:.0f} s")
    document = json.loads(r.stdout)
    assert document["destroyed"] == "three", document
    [gone] = document["abandoned"]
    assert gone["host"] == "nas" and gone["namespace"] == space and gone["by_hand"] == f"NSDEL {space}", document
    assert f"NSDEL {space}" in r.stderr and "nas" in r.stderr, r.stderr
    nothing_left(box)

    # It comes back after all: the same words make no volume over it, and what to delete is said again; the line does it.
    os.kill(nas.server.pid, signal.SIGCONT)
    assert nas.namespaces() == [space]
    r = box.run("diff", expect=3)
    assert "nas" in r.stderr + r.stdout and space in r.stderr + r.stdout, r.stderr
    assert nas.ask(*gone["by_hand"].split()) == "OK"
    box.run("diff", "--detailed-exitcode", expect=2)

# -- killed for good: replaced, and given up while the volume lives --------------------------------------------------------------
with Sandbox(QS, "two") as box, Lab(box) as lab:
    for name in ("nas", "attic", "office"):
        lab.add(name, netns=False)
    write_spec(box, lab, parity=1, data=1)
    box.apply(timeout=120)
    box.wait_ready(redundancy=1)
    (box.mount / "file").write_bytes(b"kept" * 100_000)
    box.wait_ready(redundancy=1)
    old = box.status()["nodes"][0]
    dead = lab[old["host"]]
    other = box.status()["nodes"][1]["id"]
    dead.stop(signal.SIGKILL)
    r = box.run("nodes", "delete", other, "--abandon", "--yes", expect=3)
    assert "in use" in r.stderr, r.stderr

    def replaced():
        n = {n["id"]: n for n in box.status()["nodes"]}[old["id"]]
        return n["state"] == "replaced" and n["not_deleted"] and n["not_deleted"]["tries"] >= 2
    wait_for("the dead node to be replaced and tried in vain", replaced, 150)
    box.wait_ready(redundancy=1)
    assert f"qs nodes delete {old['id']}" in box.run("nodes").stdout
    r = box.run("nodes", "delete", old["id"], "--yes", expect=5)
    assert "--abandon" in r.stderr and dead.name in r.stderr, r.stderr
    assert old["id"] in box.run("nodes").stdout
    r = box.run("nodes", "delete", old["id"], "--abandon", "--yes", expect=4)
    assert f"NSDEL {old['namespace']}" in r.stderr and dead.name in r.stderr, r.stderr
    assert old["id"] not in {n["id"] for n in box.status()["nodes"]}
    kinds = [json.loads(l)["kind"] for l in box.run("events", "--json", "-n", "200").stdout.splitlines()]
    assert "NodeNotDeleted" in kinds and "NodeAbandoned" in kinds, kinds
    # Taken out of the file it is not asked any more, dead as it is: nothing of the volume is there.
    text = box.spec.read_text()
    box.edit(f"    - {dead.entry()}\n", "")
    box.apply()
    log = next((box.root / "state").rglob("qs.log"))
    box.run("diff", "--detailed-exitcode", expect=0)
    seen = len(log.read_text())
    box.run("diff", "--detailed-exitcode", expect=0)
    assert f"host {dead.name}" not in log.read_text()[seen:], log.read_text()[seen:]
    box.spec.write_text(text)
    box.apply()
    # It returns: what was given up is shown and left alone, and a destroy that deletes all else tells of it once more.
    dead.start()
    shown = wait_for("the stray", lambda: (s := box.run("diff", expect=(0, 4)).stdout) and old["namespace"] in s and s, 60)
    assert "?" in shown, shown
    assert (box.mount / "file").read_bytes() == b"kept" * 100_000
    r = box.run("destroy", "--confirm", "two", expect=4, timeout=200)
    assert f"NSDEL {old['namespace']}" in r.stderr, r.stderr
    assert list(lab.by_namespace()) == [old["namespace"]]
    nothing_left(box)
print("what never comes back was told, and given up by word alone")
