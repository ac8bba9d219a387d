"""Build the fuzz targets with the stable compiler and run them.

    python fuzz/run.py                        every target, 10 minutes each
    python fuzz/run.py --seconds 30           in CI
    python fuzz/run.py frame_decoder --jobs 2

No nightly compiler and no cargo-fuzz: the coverage pass is part of LLVM and of every rustc, and libFuzzer comes as
source in a crate. Flags go to the target platform only (`--target`), because build scripts and macros have no
libFuzzer to link with. The corpus is kept in `fuzz/corpus` (not committed), seeded from `vectors/` and `fuzz/seeds`;
an input that fails is written to `fuzz/artifacts`. Exit status: 0 no finding, 1 a finding.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

FUZZ = Path(__file__).resolve().parent
VECTORS = FUZZ.parent / "vectors"
COVERAGE = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg=fuzzing",
]
# Seeds of each target: which vectors, and the bytes that the target reads before the data.
SEEDS = {
    "frame_decoder": [("wire", "*.bin", prefix) for prefix in (b"\x70\x00", b"\x70\x51", b"\x72\x05")],
    "dat_recovery": [("wire", "*.bin", prefix) for prefix in (b"\x00", b"\x01", b"\x03")],
    "directory_recovery": [("wire", "*.bin", prefix) for prefix in (b"\x01", b"\x03")],
    "packet_decoder": [("register", "*.bin", prefix) for prefix in (b"\x10\x00", b"\x11\x07")],
    "packet_recovery": [("register", "*.bin", prefix) for prefix in (b"\x01", b"\x03")],
    "bcsv_reader": [("bcsv", "*.bcsv", prefix) for prefix in (b"\x00\x00\x00", b"\x09\x00\x01")],
    "bcsv_header": [("bcsv", "*.bcsv", b"")],
    "bcsv_repair": [("bcsv", "*.bcsv", b"")],
}
MAX_LENGTH = 1 << 12


def main() -> int:
    """Build, seed, run."""
    targets = [binary["name"] for binary in tomllib.loads((FUZZ / "Cargo.toml").read_text())["bin"]]
    parser = argparse.ArgumentParser(description="Run the fuzz targets.")
    parser.add_argument("targets", nargs="*", help=f"all of {' '.join(targets)} if none is named")
    parser.add_argument("--seconds", type=int, default=600, help="time for each target")
    parser.add_argument("--seed", type=int, default=0, help="for runs that can be repeated; 0 is another one each time")
    options = parser.parse_args()
    if unknown := [name for name in options.targets if name not in targets]:
        parser.error(f"unknown target {unknown[0]}")
    directory = build()
    findings = [name for name in options.targets or targets if not run(directory, name, options)]
    for name in findings:
        print(f"FINDING in {name}: the input is in {FUZZ / 'artifacts' / name}")
    return 1 if findings else 0


def build() -> Path:
    """Build all targets; return where they are."""
    version = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    host = re.search(r"^host: (.*)$", version, re.MULTILINE)[1]  # type: ignore[index]
    environment = {**os.environ, "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(COVERAGE)}
    command = ["cargo", "build", "--release", "--quiet", "--manifest-path", FUZZ / "Cargo.toml", "--target", host]
    subprocess.run(command, check=True, env=environment)
    return FUZZ / "target" / host / "release"


def run(directory: Path, name: str, options: argparse.Namespace) -> bool:
    """Run one target; True if it found nothing."""
    corpus = FUZZ / "corpus" / name
    artifacts = FUZZ / "artifacts" / name
    corpus.mkdir(parents=True, exist_ok=True)
    artifacts.mkdir(parents=True, exist_ok=True)
    for folder, pattern, prefix in SEEDS.get(name, ()):
        for path in sorted((VECTORS / folder).glob(pattern)):
            add_seed(corpus, prefix + path.read_bytes())
    for path in sorted((FUZZ / "seeds" / name).glob("*")):
        add_seed(corpus, path.read_bytes())
    print(f"== {name}, {options.seconds} s", flush=True)
    command = [
        directory / name, corpus, f"-max_total_time={options.seconds}", f"-seed={options.seed}",
        f"-max_len={MAX_LENGTH}", "-timeout=10", "-rss_limit_mb=2048", f"-artifact_prefix={artifacts}/",
        "-print_final_stats=1",
    ]  # fmt: skip
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="tapeline-fuzz-", dir=memory) as scratch:
        environment = {**os.environ, "TAPELINE_FUZZ_SCRATCH": scratch}
        result = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    lines = result.stderr.splitlines()
    shown = [line for line in lines if line.startswith(("Done", "stat::number", "stat::peak")) or "DONE" in line]
    print("\n".join(shown if result.returncode == 0 else lines[-40:]), flush=True)
    return result.returncode == 0


def add_seed(corpus: Path, data: bytes) -> None:
    """Put an input into the corpus, under the name that libFuzzer would give it."""
    if len(data) <= MAX_LENGTH:
        name = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        (corpus / name).write_bytes(data)


if __name__ == "__main__":
    sys.exit(main())
