"""Builds what is measured, and says where it is."""
import json
import os
import subprocess
import sys
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
