"""Builds what is measured, says where it is, and runs it."""
import json
import os
import subprocess
import sys
import time
from pathlib import Path


def dacpipe():
    """The command."""
    return Path(os.environ.get("CARGO_TARGET_DIR", "target")) / "release" / "dacpipe"


def built(name):
    """Builds the command and the program of `--bench name`; returns the program's path."""
    subprocess.run(["cargo", "build", "--release"], check=True)
    command = ["cargo", "bench", "--bench", name, "--no-run", "--message-format", "json"]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    for message in map(json.loads, output.splitlines()):
        if message.get("executable") and message["target"]["name"] == name:
            return Path(message["executable"])
    sys.exit(f"cargo built no program for --bench {name}")


def run(command, env=None):
    """Standard output, seconds and peak MiB of a command; its failure ends the measuring."""
    start = time.perf_counter()
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, text=True, env=env)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"failed: {' '.join(str(c) for c in command)}")
    return output, seconds, usage.ru_maxrss / 1024
