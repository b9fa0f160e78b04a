"""Each trouble has its own exit code and message, and changes nothing (interface.md, exit codes)."""
import contextlib
import hashlib
import os
import pathlib
import shutil
import socket
import sqlite3
import subprocess
import sys

from harness import Failed, Sandbox, need_fuse, wait_for

need_fuse()
QS = sys.argv[1]


def expect(box, code, words, *args, **kw):
    r = box.run(*args, expect=code, **kw)
    text = (r.stdout + r.stderr).lower()
    for w in words:
        assert w.lower() in text, f"qs {' '.join(map(str, args))}: '{w}' is not in:\n{r.stdout}{r.stderr}"
    return r


@contextlib.contextmanager
def nothing_changes(box):
    """While no engine runs: every file there is, outside the mount point, with its content; the state's locks and logs excepted, and what the
    made-up grid charges by the second."""
    def look():
        return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else ""
                for p in sorted(box.root.rglob("*"))
                if box.mount not in [p, *p.parents] and p.name not in ("lock", "watcher.lock", "qs.log", "qs.err", "wallet.db")}
    before = look()
    yield
    after = look()
    assert after == before, f"gone: {sorted(set(before.items()) - set(after.items()))}, new: {sorted(set(after.items()) - set(before.items()))}"


def state_dir(box):
    return next((box.root / "state").rglob("state.db")).parent


# -- before anything exists: bad input changes nothing ------------------------------------------------------------------
with Sandbox(QS, "refuse") as box:
    expect(box, 1, ["storage.yaml"], "diff")
    box.init()
    expect(box, 64, ["--auto-approve"], "apply")  # the made-up grid writes its catalogue, and the wallet is made, when they are looked at first
    good = box.spec.read_text()
    box.spec.write_text(good.replace("parity: 2", "parity: 5"))
    with nothing_changes(box):
        expect(box, 1, ["storage.yaml:", "QS0107", "^"], "apply", "--auto-approve")
    box.spec.write_text(good.replace("nodes: 6", "nodes: 6\n  nodes: 7"))
    with nothing_changes(box):
        expect(box, 1, ["storage.yaml:"], "validate")
    box.spec.write_text(good)
    with nothing_changes(box):
        expect(box, 64, ["--auto-approve"], "apply")  # a prompt where nobody can answer
        expect(box, 64, [], "no-such-command")
    assert not box.processes(), box.processes()

    # The mount point: not empty, missing, occupied by another mount.
    (box.mount / "in-the-way").write_text("x")
    with nothing_changes(box):
        expect(box, 1, ["not empty"], "apply", "--auto-approve")
    (box.mount / "in-the-way").unlink()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(box.mount)], check=True)
    try:
        with nothing_changes(box):
            expect(box, 1, [str(box.mount)], "apply", "--auto-approve")
    finally:
        subprocess.run(["umount", str(box.mount)], check=True)
    assert not box.zdb_pids(), "a refused apply reserved nodes"

    # The words: wrong ones, and none at all.
    phrase = next((box.root / "config").rglob("phrase"))
    other = box.root / "other-phrase"
    words = phrase.read_text()
    phrase.rename(box.root / "kept")
    with nothing_changes(box):
        expect(box, 1, ["qs key"], "apply", "--auto-approve")
    (box.root / "kept").rename(phrase)

    # -- with a volume ---------------------------------------------------------------------------------------------------
    blocker = socket.socket()
    blocker.bind(("127.0.0.1", 0))
    blocker.listen()
    port = blocker.getsockname()[1]
    box.listen(f"127.0.0.1:{port}")
    expect(box, 4, [str(port)], "apply", "--auto-approve")  # done, but the status page cannot be served
    assert os.path.ismount(box.mount)
    blocker.close()
    box.wait_ready()

    def recorded():
        s = box.status()
        return s["serial"], sorted(n["id"] for n in s["nodes"]), box.engine_pid(), sorted(box.processes())
    before = recorded()
    expect(box, 5, ["engine"], "run", timeout=30)  # a second engine
    assert recorded() == before, (before, recorded())

    # protect is recorded: it holds although the file no longer says so.
    box.edit("protect: false", "protect: true")
    box.apply(expect=(0, 4))
    box.edit("protect: true", "protect: false")
    expect(box, 3, ["protect"], "destroy", "--confirm", "refuse")
    box.apply(expect=(0, 4))

    box.run("stop")
    wait_for("the engine to end", lambda: not [a for _, a in box.processes() if a[1] != "zdb"], 30)

    # Wrong words for this state.
    subprocess.run([box.qs, "key", "new", "elsewhere"], env=box.env, cwd=box.root, capture_output=True, check=True)
    made = [p for p in (box.root / "config").rglob("phrase") if "elsewhere" in str(p)]
    with nothing_changes(box):
        expect(box, 3, ["words"], "apply", "--auto-approve", env={"QS_PHRASE_FILE": str(made[0])})

    # The words without the state, while the nodes are there.
    where = state_dir(box)
    hidden = box.root / "hidden"
    where.rename(hidden)
    for command in (["diff"], ["apply", "--auto-approve"]):
        with nothing_changes(box):
            r = expect(box, 3, ["exists", "state.db", "missing", "put back a copy"], *command)
        assert "qs recover" not in r.stderr, "a command that does not exist is no advice"
    for p, argv in box.processes():
        assert argv[1] == "zdb", f"a refused apply left an engine behind: {argv}"
    shutil.rmtree(where, ignore_errors=True)
    hidden.rename(where)

    # The record alone is missing: keys and log are still here, and nothing may be taken for a leftover.
    (where / "state.db").rename(hidden)
    left = {p.name for p in where.iterdir()}
    assert {"volume.json", "rows", "log"} <= left, left
    for command in (["diff"], ["apply", "--auto-approve"], ["destroy", "--confirm", "refuse"], ["start"]):
        with nothing_changes(box):
            expect(box, 3, ["state.db", "missing"], *command)
    hidden.rename(where / "state.db")

    # State of a newer version, and state that nobody can read.
    db = where / "state.db"
    saved = db.read_bytes()
    c = sqlite3.connect(db)
    c.execute("pragma user_version = 999")
    c.commit()
    c.close()
    with nothing_changes(box):
        expect(box, 3, ["newer"], "apply", "--auto-approve")
    db.write_bytes(b"this is no database, it only looks like one" * 200)
    with nothing_changes(box):
        expect(box, 1, ["state.db"], "apply", "--auto-approve")
    db.write_bytes(saved)

    box.run("start")
    box.wait_ready()
    box.run("destroy", "--confirm", "refuse")
    wait_for("nothing left", lambda: not box.processes() and not box.mounts(), 30)
print("every refusal had its message and its code")
