"""Three machines of one's own, each in a network namespace: two carry a mirrored volume, one of them dies and the third takes
its place; the dead one returns and gives back what it held; the volume grows, and goes without a trace.
"""
import os
import signal
import sys

from harness import Failed, Sandbox, need_fuse, wait_for
from machines import Lab, need_netns

need_fuse()
need_netns()


def members(box):
    return {n["host"]: n for n in box.status()["nodes"] if n["state"] not in ("gone", "replaced", "draining")}


with Sandbox(sys.argv[1], "home-lab") as box, Lab(box) as lab:
    machines = [lab.add(name) for name in ("nas", "attic", "office")]
    box.spec.write_text(f"""version: 1
name: home-lab
grid:
  hosts:
    - {machines[0].entry()}
    - {machines[1].entry()}
    - {machines[2].entry()}
storage:
  capacity: 1GiB
  redundancy: {{data: 1, parity: 1}}
  protect: false
mount:
  path: {box.mount}
monitor: {{interval: 1s, failed_after: 3s, replace_after: 4s}}
""")
    box.run("validate")
    box.run("key", "new", "home-lab")
    shown = box.run("diff", "--detailed-exitcode", expect=2).stdout
    assert "Belgium" in shown and "2 GiB" in shown, shown
    assert not lab.by_namespace(), "diff must make nothing"

    # -- made -----------------------------------------------------------------------------------------------------------
    box.apply(timeout=120)
    box.wait_ready()
    used = members(box)
    assert len(used) == 2 and set(used) < {"nas", "attic", "office"}, used
    spaces = lab.by_namespace()
    assert sorted(spaces.values()) == sorted(used), spaces
    for ns, host in spaces.items():
        info = lab[host].nsinfo(ns)
        assert info["password"] == "yes" and info["public"] == "no" and int(info["data_limits_bytes"]) >= 2 << 30, info
    assert not box.status()["wallet"]["known"], "machines of one's own cost nothing"
    data = {f"file-{i}": os.urandom(3 << 20) for i in range(8)}
    for name, bytes_ in data.items():
        (box.mount / name).write_bytes(bytes_)
    box.wait_ready(redundancy=1)

    # -- no secret where it does not belong ------------------------------------------------------------------------------
    for m in machines:
        for path in (p for d in ("state", "config", "cache") for p in (box.root / d).rglob("*") if p.is_file()):
            assert m.password.encode() not in path.read_bytes(), f"the password of {m.name} is in {path}"
        for pid, argv in box.processes():
            assert m.password not in " ".join(argv), f"the password of {m.name} is in the arguments of {pid}"

    # -- a wrong administrator's password makes nothing and says so ---------------------------------------------------------
    refused = box.run("apply", "--auto-approve", expect=None, env={f"{n}_ADMIN": "wrong" for n in ("NAS", "ATTIC", "OFFICE")})
    assert len(lab.by_namespace()) == 2, refused.stdout + refused.stderr
    box.apply()

    # -- one dies: power gone, cable dead -----------------------------------------------------------------------------------
    dead = lab[sorted(used)[0]]
    dead.stop(signal.SIGKILL)
    dead.plug(False)
    for name, bytes_ in data.items():
        assert (box.mount / name).read_bytes() == bytes_, f"{name} with one machine dead"
    (box.mount / "while-dead").write_bytes(b"w" * (1 << 20))
    spare = ({"nas", "attic", "office"} - set(used)).pop()
    wait_for(f"a node on {spare}", lambda: members(box).get(spare, {}).get("state") == "ready", 120)
    box.wait_ready(redundancy=1, timeout=120)
    assert set(members(box)) == {spare, *used} - {dead.name}
    box.run("cache", "drop")
    for name, bytes_ in data.items():
        assert (box.mount / name).read_bytes() == bytes_, f"{name} from the two that are left"

    # -- it returns: what it held is taken from it ------------------------------------------------------------------------
    dead.plug(True)
    dead.start()
    wait_for(f"{dead.name} to be free of us", lambda: not dead.namespaces(), 120)

    # -- resized in place --------------------------------------------------------------------------------------------------
    box.edit("capacity: 1GiB", "capacity: 3GiB")
    box.apply()
    def grown():
        sizes = [int(lab[h].nsinfo(ns)["data_limits_bytes"]) for ns, h in lab.by_namespace().items()]
        return len(sizes) == 2 and min(sizes) >= 3 << 30
    wait_for("both quotas to be larger", grown, 60)

    # -- the engine starts again and finds its machines --------------------------------------------------------------------
    box.run("stop")
    box.run("start")
    box.wait_ready(redundancy=1)
    for name, bytes_ in data.items():
        assert (box.mount / name).read_bytes() == bytes_, f"{name} after a restart"

    # -- the end -----------------------------------------------------------------------------------------------------------
    box.run("destroy", "--confirm", "home-lab", timeout=180)
    wait_for("no namespace to be left", lambda: not lab.by_namespace(), 60)
    if (box.root / "grid").exists():
        raise Failed("a volume on machines of one's own made a local grid")
