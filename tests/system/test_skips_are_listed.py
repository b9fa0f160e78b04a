"""scripts/test: what was skipped stands ahead of ctest's summary with its reason, the summary is last, the exit code is ctest's."""
import pathlib
import shutil
import subprocess
import sys
import tempfile

from harness import skip

if not shutil.which("ctest"):
    skip("there is no ctest")
script = pathlib.Path(__file__).resolve().parents[2] / "scripts/test"
TESTS = {  # name: what it prints, its exit code
    "fine": ("all right", 0),
    "cannot": ("SKIPPED: this machine has no /dev/fuse", 77),
    "silent": ("", 77),
    "partly": ("x" * 5000 + "\nfile.cpp:7: MESSAGE: skipped: needs root to be somebody else\nskipped: no zsh here\nskipped: no zsh here", 0),
    "talks": ("nothing was skipped here, 0 skipped", 0),
    "wrong": ("skipped: what does not matter, as it failed", 1),
}


def run(names):
    with tempfile.TemporaryDirectory(prefix="qs-skips-") as tmp:
        lines = []
        for name in names:
            said, code = TESTS[name]
            lines.append(f"add_test({name} [==[{sys.executable}]==] -c [==[print({said!r}); raise SystemExit({code})]==])")
            lines.append(f"set_tests_properties({name} PROPERTIES SKIP_RETURN_CODE 77)")
        (pathlib.Path(tmp) / "CTestTestfile.cmake").write_text("\n".join(lines) + "\n")
        r = subprocess.run([sys.executable, script, tmp, "-j", "2"], capture_output=True, text=True)
    print(r.stdout, r.stderr)
    before, summary = r.stdout.split("% tests passed", 1)
    assert before.rstrip().rsplit("\n", 1)[-1] in ("100", "83"), "the summary begins here"
    listed = before.split("Skipped on this machine:\n", 1)[1].split("\n\n", 1)[0].splitlines() if "Skipped on this machine:" in before else None
    assert "Total Test time" in summary and "Skipped on" not in summary
    return r.returncode, listed, summary


code, listed, summary = run(TESTS)
assert code != 0
assert listed == ["  cannot: this machine has no /dev/fuse", "  silent: (it did not say why)",
                  "  partly (a part): needs root to be somebody else", "  partly (a part): no zsh here"], listed
assert "wrong (Failed)" in summary, summary

code, listed, summary = run(["fine", "cannot"])
assert code == 0 and listed == ["  cannot: this machine has no /dev/fuse"], (code, listed)

code, listed, summary = run(["fine", "talks"])
assert code == 0 and listed is None, (code, listed)
