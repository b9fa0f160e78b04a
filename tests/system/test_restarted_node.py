"""A node that was restarted while no engine ran: what it confirmed shortly before it was last seen is asked for again, before it counts."""
import os
import signal
import sys

from harness import Sandbox, need_fuse, wait_for

need_fuse()
with Sandbox(sys.argv[1], "restarted") as box:
    box.init(capacity="1GiB")
    box.apply()
    data = os.urandom(8 << 20)
    (box.mount / "file").write_bytes(data)
    box.wait_ready(redundancy=2)
    seen = box.root / "state" / "qs" / "restarted" / "sightings.json"
    wait_for("the engine to record whom it sees", lambda: seen.exists() and seen.read_text().count("instance") == 6)

    def doubted():
        return [e for e in box.run("events", "--json").stdout.splitlines() if "ShardsUnconfirmed" in e]

    box.run("stop")
    box.run("start")
    box.wait_ready(redundancy=2)
    assert not doubted(), "nobody was restarted"
    box.run("stop")
    victim = sorted(box.zdb_pids())[0]
    os.kill(victim, signal.SIGKILL)
    box.run("start")
    wait_for("the node's word to be doubted", doubted, 60)
    assert len(doubted()) == 1, doubted()
    box.wait_ready(redundancy=2)
    box.run("cache", "drop")
    assert (box.mount / "file").read_bytes() == data
    box.run("destroy", "--confirm", "restarted")
print("one node restarted behind the engine's back: doubted, asked again, whole")
