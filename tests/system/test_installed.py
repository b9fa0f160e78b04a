"""What `cmake --install` puts where: the program runs, and the systemd unit starts that program and no other, whatever the prefix is."""
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

from harness import skip, skip_part

build = pathlib.Path(sys.argv[1]).resolve().parent
if not (build / "cmake_install.cmake").exists() or not shutil.which("cmake"):
    skip("this qs was not built here, or there is no cmake: nothing can be installed")


def install(prefix=None, destdir=None):
    env = {k: v for k, v in os.environ.items() if k != "DESTDIR"}
    if destdir:
        env["DESTDIR"] = str(destdir)
    r = subprocess.run(["cmake", "--install", str(build), *(["--prefix", str(prefix)] if prefix else [])], cwd=tmp, env=env, capture_output=True, text=True)
    assert r.returncode == 0, r.stdout + r.stderr


def started_by(unit):
    """The program of ExecStart, as systemd reads it."""
    lines = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.M)
    assert len(lines) == 1, lines
    return pathlib.Path(shlex.split(lines[0])[0].replace("%%", "%"))


with tempfile.TemporaryDirectory(prefix="qs-installed-") as name:
    tmp = pathlib.Path(name).resolve()

    # Below a prefix that is given only now; one of them is hard to write into a unit.
    for prefix in (tmp / "usr", tmp / "a 100% odd place", pathlib.Path("relative")):
        install(prefix)
        program, unit = tmp / prefix / "bin/qs", tmp / prefix / "lib/systemd/system/qs-zdb.service"
        assert started_by(unit) == program, f"{unit} starts {started_by(unit)}, installed is {program}"
        assert unit.stat().st_mode & 0o777 == 0o644, oct(unit.stat().st_mode)
        assert "@" not in unit.read_text(), "something was left to be filled in"
        assert (tmp / prefix / "share/doc/qs/qs-zdb.env").is_file()
        r = subprocess.run([started_by(unit), "zdb", "--help"], capture_output=True, text=True)
        assert r.returncode == 0 and "--admin-file" in r.stdout, r
        if not shutil.which("systemd-analyze"):
            skip_part("no systemd-analyze here: the unit was not verified by systemd")
            continue
        r = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True)
        about_it = [line for line in (r.stdout + r.stderr).splitlines() if "qs-zdb" in line]
        assert not about_it, about_it
        if r.returncode != 0:  # where no systemd runs it may fail for reasons of its own; then what it says is shown
            print(f"systemd-analyze ended with {r.returncode}: {(r.stdout + r.stderr).strip()[-500:]}")

    # The way packages are made: DESTDIR is where the files are put now, not where they will be.
    install("/usr", tmp / "image")
    assert (tmp / "image/usr/bin/qs").is_file()
    assert started_by(tmp / "image/usr/lib/systemd/system/qs-zdb.service") == pathlib.Path("/usr/bin/qs")

    # The prefix that was configured.
    prefix = re.search(r"^CMAKE_INSTALL_PREFIX:PATH=(.*)$", (build / "CMakeCache.txt").read_text(), re.M).group(1)
    install(destdir=tmp / "default")
    there = list((tmp / "default").rglob("qs-zdb.service"))
    assert len(there) == 1, there
    assert started_by(there[0]) == pathlib.Path(prefix) / "bin/qs"
    # And the manifest names the unit, so that it can be taken away again.
    assert any(line.endswith("/qs-zdb.service") for line in (build / "install_manifest.txt").read_text().splitlines())
print("installed: the unit starts the program that was installed with it")
