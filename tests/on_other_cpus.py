"""Runs the tests with the arithmetic of other CPUs: `python tests/on_other_cpus.py [PYTEST OPTIONS]`, or `tox -e cpus`.

A sum's last bit depends on the order of its terms, which follows from the CPU's vectors, its maker and the number of
threads. MKL, ATen and oneDNN can be told which instructions to use, so one machine can do the sums of others. MKL looks
at its setting on Intel CPUs only, so elsewhere it is told, by a library of one function, that this is one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

NAMES = ("MKL_ENABLE_INSTRUCTIONS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "ROBUSTOK_TEST_THREADS")
#: What MKL, ATen and oneDNN are told, and the number of threads. A CPU without AVX-512 does AVX2's sums instead.
WAYS = [
    ("AVX512", "", "ALL", "1"),
    ("AVX2", "avx2", "AVX2", "1"),
    ("SSE4_2", "default", "SSE41", "1"),
    ("AVX512", "", "ALL", "2"),
    ("AVX2", "avx2", "AVX2", "2"),
    ("SSE4_2", "default", "SSE41", "2"),
]
INTEL = "int mkl_serv_intel_cpu_true(void) { return 1; }"


def on_intel(folder: Path) -> dict[str, str]:
    """The setting that makes MKL take this CPU for Intel's: none on Intel, or without a compiler to make it with."""
    if "GenuineIntel" in Path("/proc/cpuinfo").read_text(encoding="utf-8"):
        return {}
    compiler = shutil.which("cc")
    if compiler is None:
        print("no C compiler: MKL will do its sums as on this CPU")
        return {}
    source, library = folder / "intel.c", folder / "intel.so"
    source.write_text(INTEL, encoding="utf-8")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return {"LD_PRELOAD": str(library)}


def main() -> None:
    """Runs the tests in every way; fails where one of them fails."""
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        maker = on_intel(Path(folder))
        for way in WAYS:
            settings = {name: value for name, value in zip(NAMES, way, strict=True) if value}
            described = " ".join(f"{name}={value}" for name, value in settings.items())
            print(f"== {described}", flush=True)
            command = [sys.executable, "-m", "pytest", "-q", "-n", "auto", "--maxprocesses", "4"]
            command += ["--dist", "worksteal", *sys.argv[1:]]
            others = {name: value for name, value in os.environ.items() if name not in NAMES}
            if subprocess.run(command, check=False, env=others | maker | settings).returncode:
                failed.append(described)
    print("\n".join([f"failed with {described}" for described in failed] or [f"passed in all {len(WAYS)} ways"]))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
