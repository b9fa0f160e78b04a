"""A stop in the middle of a destroy: the record stays as long as anything is left that it is needed for, and the same
command again ends with nothing left. Where the stop falls is a matter of time, so several are tried."""
import os
import signal
import subprocess
import sys
import time

from harness import Sandbox, need_fuse, wait_for

need_fuse()
QS = sys.argv[1]

for delay in (0.02, 0.04, 0.06, 0.1):
    with Sandbox(QS, "ends") as box:
        box.init(capacity="1GiB")
        box.apply()
        (box.mount / "file").write_text("x" * 10_000)
        engine = box.engine_pid()
        nodes = box.root / "grid" / "nodes"
        client = subprocess.Popen([box.qs, "destroy", "--confirm", "ends"], cwd=box.work, env=box.env,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        time.sleep(delay)  # not waiting for anything: it is the moment of the blow
        try:
            os.kill(engine, signal.SIGTERM)
        except ProcessLookupError:
            pass
        said = client.communicate(timeout=120)[1]
        wait_for("the engine to end", lambda: not [a for _, a in box.processes() if a[1] != "zdb"], 60)
        left = [p.name for p in nodes.iterdir()]
        recorded = any((box.root / "state").rglob("state.db"))
        assert recorded or not left, f"after {delay} s: {left} are reserved and nothing knows of them; destroy said: {said}"
        assert client.returncode != 0 or not left, f"destroy said that it was done, and left {left}"
        box.run("destroy", "--confirm", "ends")
        wait_for("nothing left", lambda: not box.processes() and not box.mounts() and not list(nodes.iterdir()), 30)
print("a destroy that was stopped goes on, and forgets nothing before its end")
