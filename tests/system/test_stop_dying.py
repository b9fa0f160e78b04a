"""`qs stop` while a crashed engine waits to be started again stops that as well; what was applied and cannot be read any more is told by
start, apply and status at once, instead of being waited for.
"""
import os
import signal
import sqlite3
import sys
import time

from harness import Failed, Sandbox, need_fuse, wait_for

need_fuse()


def watchers(box):
    return [pid for pid, argv in box.processes() if "--watch" in argv]


def engines(box):
    return [pid for pid, argv in box.processes() if len(argv) > 1 and argv[1] == "run" and "--watch" not in argv]


with Sandbox(sys.argv[1], "dying") as box:
    box.init(capacity="1GiB", nodes=3, data=2, parity=1)
    box.apply()
    box.wait_ready()
    log = next((box.root / "state").rglob("qs.log"))

    # Killed again and again, until the watcher waits for seconds: long enough to be stopped in that time.
    def dies_slowly():
        for pid in engines(box):
            box.status()  # it serves, so that its end is a crash and no failed start
            os.kill(pid, signal.SIGKILL)
        return "starting it again in 8000 ms" in log.read_text()
    wait_for("the watcher to wait for long", dies_slowly, 90, 0.2)
    [watcher] = watchers(box)
    assert not engines(box)
    begun = time.monotonic()
    r = box.run("stop")
    took = time.monotonic() - begun
    assert "had died" in r.stderr, r.stderr
    assert took < 4, f"stop waited {took:.1f} s for a start that it was to prevent"
    assert not watchers(box) and not engines(box), "who could start it again is still there"
    assert "no engine runs" in box.run("stop").stderr

    # As before: an engine that stops in order takes its watcher along, and restart finds nobody in its way.
    box.run("start")
    box.run("restart")
    assert len(watchers(box)) == 1 and len(engines(box)) == 1
    box.run("stop")
    assert not watchers(box) and not engines(box)

    # What was accepted cannot be read (by this version): said at once, nothing is planned over it.
    db = log.parent / "state.db"
    with sqlite3.connect(db) as c:
        [(kept,)] = c.execute("SELECT value FROM meta WHERE key = 'accepted_text'").fetchall()
        c.execute("UPDATE meta SET value = ? WHERE key = 'accepted_text'", (kept.replace("capacity:", "capacities:"),))
    begun = time.monotonic()
    r = box.run("start", expect=4)
    assert time.monotonic() - begun < 60, "start waited out its time"
    assert "storage.yaml:" in r.stderr and "capacities" in r.stderr and "cannot be read" in r.stderr, r.stderr
    shown = box.run("status").stdout
    assert "ConfigValid=False" in shown and "capacities" in shown, shown
    for command in (["diff"], ["apply", "--auto-approve"]):
        r = box.run(*command, expect=1)
        assert "cannot be read" in r.stderr, r.stderr
    assert len(box.status()["nodes"]) == 3
    box.run("stop")
    with sqlite3.connect(db) as c:
        c.execute("UPDATE meta SET value = ? WHERE key = 'accepted_text'", (kept,))
    box.run("start")
    box.wait_ready()
    box.run("destroy", "--confirm", "dying")
    wait_for("nothing left", lambda: not box.processes() and not box.mounts(), 30)
print("stop stopped what was about to start, and what cannot be read was said")
