"""Ask whether vulnerabilities of what is locked are known: 0 none is, 1 some are, 3 not everything could be asked for.

`pip-audit` takes a name that its service does not know for a clean one, and a mirror without advisories knows none;
here that is an answer of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LOCK = Path(__file__).parents[1] / "constraints.txt"
NONE_KNOWN, KNOWN, NOT_CHECKED = 0, 1, 3
NAMED = 5


def asked(options: list[str]) -> tuple[list[dict[str, Any]], str]:
    """What is said of each distribution, and why where nothing is."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), "--no-deps", "--disable-pip"]
        command += ["--progress-spinner", "off", "--format", "json", "--output", str(report), *options]
        ended = subprocess.run(command, capture_output=True, text=True)
        if report.exists():
            return json.loads(report.read_text())["dependencies"], ""
    return [], (ended.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1]


def main() -> int:
    """Say what is known of the locked distributions."""
    parser = argparse.ArgumentParser(description=__doc__, epilog="Other options are those of pip-audit.")
    parser.add_argument(
        "--if-reachable", action="store_true", help="end with 0 where not everything could be asked for"
    )
    given, options = parser.parse_known_args()
    found, trouble = asked(options)
    unknown = [one["name"] for one in found if "skip_reason" in one]
    known = [one for one in found if one.get("vulns")]
    for one in known:
        for vulnerability in one["vulns"]:
            fixed = ", ".join(vulnerability["fix_versions"]) or "no version yet"
            say(f"{one['name']} {one['version']}: {vulnerability['id']}, mended by {fixed}")
    if trouble:
        say(f"NOT CHECKED for known vulnerabilities: {trouble}")
    elif unknown:
        names = ", ".join(unknown[:NAMED]) + (" ..." if len(unknown) > NAMED else "")
        say(f"NOT CHECKED for known vulnerabilities: {len(unknown)} of {len(found)} distributions ({names})")
    else:
        say(f"{len(found)} distributions, {len(known)} with known vulnerabilities")
    if known:
        return KNOWN
    return NOT_CHECKED if (trouble or unknown) and not given.if_reachable else NONE_KNOWN


def say(line: str) -> None:
    """One line for whoever runs this."""
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
