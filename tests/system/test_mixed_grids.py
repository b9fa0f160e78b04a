"""A list of grids: one volume on nodes of the local grid and on two machines of one's own. Each node remembers its grid, only the
local ones are paid, the file decides where nodes stay: a machine taken out of it gives its node up.
"""
import os
import sys
from decimal import Decimal

from harness import Sandbox, need_fuse, wait_for
from machines import Lab

need_fuse()


def members(box):
    return [n for n in box.json("nodes")["nodes"] if n["state"] not in ("gone", "replaced", "draining")]


with Sandbox(sys.argv[1], "mixed") as box, Lab(box) as lab:
    one, two = lab.add("one", netns=False), lab.add("two", netns=False)
    entries = [m.entry().replace("country: Belgium", "farm: home, country: Belgium") for m in (one, two)]
    box.spec.write_text(f"""version: 1
name: mixed
grid:
  - local
  - hosts:
      - {entries[0]}
      - {entries[1]}
storage:
  capacity: 1GiB
  redundancy: {{data: 2, parity: 2}}
  nodes: 4
  locations:
    - {{farm: home, nodes: 2}}
  protect: false
mount:
  path: {box.mount}
monitor: {{interval: 1s, failed_after: 3s, replace_after: 4s}}
""")
    box.run("validate")
    box.run("key", "new", "mixed")
    box.run("diff", "--detailed-exitcode", expect=2)
    box.apply()
    box.wait_ready()
    grids = sorted(n["provider"] for n in members(box))
    assert grids == ["hosts", "hosts", "local", "local"], grids
    assert sorted(lab.by_namespace().values()) == ["one", "two"]
    wallet = wait_for("the wallet to be known", lambda: (w := box.status()["wallet"])["known"] and w, 60)
    paid = sum(Decimal(n["price_per_month"]) for n in members(box))
    assert Decimal(wallet["per_month"]) == paid > 0, (wallet, paid)
    assert all(float(n["price_per_month"]) == 0 for n in members(box) if n["provider"] == "hosts")
    data = os.urandom(8 << 20)
    (box.mount / "file").write_bytes(data)
    box.wait_ready(redundancy=2)
    box.run("diff", "--detailed-exitcode", expect=0)

    # -- one machine is taken out of the file: its node moves, its namespace goes ------------------------------------------
    box.edit(f"      - {entries[1]}\n", "")
    box.edit("{farm: home, nodes: 2}", "{farm: home, nodes: 1}")
    shown = box.run("diff", "--detailed-exitcode", expect=2).stdout
    assert "two is no longer in the file" in shown, shown
    box.apply(timeout=200)
    wait_for("machine two to be free of us", lambda: not two.namespaces(), 120)
    box.wait_ready(redundancy=2)
    assert sorted(n["provider"] for n in members(box)) == ["hosts", "local", "local", "local"]
    box.run("cache", "drop")
    assert (box.mount / "file").read_bytes() == data

    # -- the whole grid is taken out -----------------------------------------------------------------------------------------
    text = box.spec.read_text()
    start, end = text.index("grid:"), text.index("storage:")
    box.spec.write_text(text[:start] + "grid: local\n" + text[end:].replace("  locations:\n    - {farm: home, nodes: 1}\n", ""))
    shown = box.run("diff", "--detailed-exitcode", expect=2).stdout
    assert "grid hosts is no longer in the file" in shown, shown
    box.apply(timeout=200)
    wait_for("machine one to be free of us", lambda: not one.namespaces(), 120)
    box.wait_ready(redundancy=2)
    assert {n["provider"] for n in members(box)} == {"local"}
    assert (box.mount / "file").read_bytes() == data
    box.run("destroy", "--confirm", "mixed", timeout=180)
