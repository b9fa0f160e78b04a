"""What one command at a time can be asked for: words brought along, watching, following edits, systemd, completion, long paths,
installing."""
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import urllib.error
import urllib.request

from harness import Failed, Sandbox, need_fuse, skip_part, wait_for

need_fuse()
QS = sys.argv[1]
build = pathlib.Path(QS).resolve().parent

# -- completion loads in the shells that are here -------------------------------------------------------------------------
with Sandbox(QS, "shell") as box:
    for shell, check in {"bash": "source <(\"$QS\" completion bash) && complete -p qs",
                         "fish": "\"$QS\" completion fish | source; complete -C 'qs app'",
                         "zsh": "autoload -U compinit; compinit -D; source <(\"$QS\" completion zsh); print $_comps[qs]"}.items():
        if not shutil.which(shell):
            skip_part(f"no {shell} here: its completion was not loaded")
            continue
        r = subprocess.run([shell, "-c", check], env={**box.env, "QS": box.qs}, capture_output=True, text=True)
        assert r.returncode == 0 and "qs" in r.stdout + ("qs" if shell == "fish" and "apply" in r.stdout else "") and not r.stderr, (shell, r)
    # bash: what is completed is what there is.
    r = subprocess.run(["bash", "-c", "source <(\"$QS\" completion bash); COMP_WORDS=(qs ap); COMP_CWORD=1; $(complete -p qs | sed 's/.*-F \\([^ ]*\\).*/\\1/'); "
                        "printf '%s\\n' \"${COMPREPLY[@]}\""], env={**box.env, "QS": box.qs}, capture_output=True, text=True)
    assert "apply" in r.stdout.split(), r

# -- make install into a directory ----------------------------------------------------------------------------------------
with Sandbox(QS, "inst") as box:
    if (build / "cmake_install.cmake").exists():
        r = subprocess.run(["cmake", "--install", str(build), "--prefix", "/usr"], env={**box.env, "DESTDIR": str(box.root / "image")}, capture_output=True, text=True)
        assert r.returncode == 0, r.stdout + r.stderr
        program = box.root / "image/usr/bin/qs"
        assert os.access(program, os.X_OK), list((box.root / "image").rglob("*"))
        r = subprocess.run([str(program), "version"], env=box.env, capture_output=True, text=True)
        assert r.returncode == 0 and r.stdout.startswith("qs "), r
    else:
        skip_part("this qs was not built here: installing was not tried")

# -- words that were brought, a state directory whose socket's path is too long for a socket address -----------------------------
with Sandbox(QS, "brought") as box:
    box.init("--no-key")
    r = box.run("apply", "--auto-approve", expect=1)
    assert "qs key" in r.stderr, r.stderr
    words = subprocess.run([box.qs, "key", "new", "other", "--show-words"], env=box.env, cwd=box.root, capture_output=True, text=True)
    assert words.returncode == 0, words
    source = next((box.root / "config").rglob("other/phrase"))
    r = box.run("key", "import", "brought", input="one two three\n", expect=1)
    assert not (box.root / "config/qs/brought/phrase").exists(), "words that are none were kept"
    box.run("key", "import", "brought", input=source.read_text())
    phrase = box.root / "config/qs/brought/phrase"
    assert phrase.read_text().split() == source.read_text().split() and stat.S_IMODE(phrase.stat().st_mode) == 0o600
    r = box.run("key", "import", "brought", input=source.read_text(), expect=(1, 3))  # never overwritten
    phrase.unlink()
    box.run("key", "import", "brought", "--from", source)
    deep = box.root / ("deep-" + "x" * 60) / ("deeper-" + "y" * 60) / "state"
    deep.mkdir(parents=True)
    assert len(str(deep / "control.sock")) > 107
    box.env["QS_STATE_DIR"] = str(deep)
    box.apply()
    # Ready is answered when the wallet knows what was just reserved.
    assert float(box.status()["wallet"]["per_month"]) > 0, box.status()["wallet"]
    s = box.wait_ready()
    for document in (["validate"], ["diff"], ["status"], ["nodes"], ["wallet"], ["version"], ["grid", "hosts"], ["grid", "nodes"], ["apply", "--auto-approve"]):
        version = box.json(*document)["format_version"]
        assert version == 1 and isinstance(version, int), (document, version)
    assert stat.S_IMODE((deep / "control.sock").stat().st_mode) == 0o600
    # status --watch: again and again, until it is interrupted.
    watch = subprocess.Popen([box.qs, "status", "--watch", "--json", "--interval", "200ms"], cwd=box.work, env=box.env, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    seen = [json.loads(watch.stdout.readline()) for _ in range(3)]
    assert all(x["state"] == "Ready" for x in seen) and len({x["time"] for x in seen}) >= 1, seen
    watch.send_signal(signal.SIGINT)
    watch.stdout.read()
    assert watch.wait(20) == 130, watch.returncode
    box.run("restart")
    assert box.status()["mount"]["mounted"]
    box.run("destroy", "--confirm", "brought")
    del box.env["QS_STATE_DIR"]
    assert not list(deep.glob("*")) if deep.exists() else True, list(deep.glob("*"))

# -- status.listen: metrics, the status and a page to look at, and nothing that changes anything ---------------------------------
with Sandbox(QS, "listen") as box:
    box.init()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        where = "127.0.0.1:%d" % probe.getsockname()[1]
    box.listen(where)
    box.apply()
    box.wait_ready()

    def get(path, data=None):
        with urllib.request.urlopen(f"http://{where}{path}", data=data, timeout=30) as r:
            return r.read().decode()
    metrics = get("/metrics")
    assert re.search(r"^qs_up 1$", metrics, re.M), metrics
    assert len(re.findall(r"^qs_node_ready\{.*\} 1$", metrics, re.M)) == 6, metrics
    assert json.loads(get("/v1/status"))["state"] == "Ready"
    assert "<html" in get("/")
    try:
        raise Failed("somebody on the network can stop it: " + get("/v1/stop", b"{}"))
    except urllib.error.HTTPError as e:
        assert e.code == 404, e
    assert box.status()["state"] == "Ready"
    box.run("destroy", "--confirm", "listen")

# -- systemd: READY when it serves, STOPPING when it ends; --follow takes what only adds -------------------------------------------
with Sandbox(QS, "follow") as box:
    box.init()
    notify = box.root / "notify"
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.bind(str(notify))
    told.settimeout(60)
    log = open(box.root / "run.log", "wb")
    run = subprocess.Popen([box.qs, "run", "--follow"], cwd=box.work, env={**box.env, "NOTIFY_SOCKET": str(notify)}, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    assert told.recv(4096) == b"READY=1"
    assert box.run("status").returncode == 0  # who is told READY can ask
    # The first text of a new volume only adds.
    s = box.wait_ready()
    assert s["generation"] == 1 and len(s["nodes"]) == 6, s
    box.edit("nodes: 6", "nodes: 7")
    wait_for("the edit to be followed", lambda: box.status()["generation"] == 2, 60)
    wait_for("the seventh node", lambda: [n["state"] for n in box.status()["nodes"]] == ["ready"] * 7, 90)
    assert not box.status()["unapplied_edits"]
    # What takes away waits for a person.
    box.edit("nodes: 7", "nodes: 6")

    def needs_person():
        c = next(c for c in box.status()["conditions"] if c["type"] == "ApprovalNeeded")
        return c["status"] == "True" and c["reason"] == "EditNeedsPerson"
    wait_for("the engine to ask for a person", needs_person, 60)
    s = box.status()
    assert s["generation"] == 2 and len(s["nodes"]) == 7 and s["unapplied_edits"], s
    box.apply()
    wait_for("six nodes", lambda: [n["state"] for n in box.status()["nodes"]] == ["ready"] * 6, 120)
    assert not needs_person()
    box.wait_ready()
    run.send_signal(signal.SIGTERM)
    assert told.recv(4096) == b"STOPPING=1"
    assert run.wait(60) == 0, run.returncode
    assert not box.mounts()
    box.run("destroy", "--confirm", "follow")
print("each command did what it says")
