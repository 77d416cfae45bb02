"""Both scenarios, short and at twenty times their speed: what they show must show itself here, too, if less sharply."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.stack import children

pytestmark = pytest.mark.e2e

COMMAND = (sys.executable, "-m", "extproc.cli", "scenario")
ALONE, WITHOUT, WITH = "guaranteed alone", "flood, no admission", "flood, admission"


def found_by(out: Path, *arguments: str) -> dict[str, Any]:
    command = [*COMMAND, *arguments, "--json", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert Path(report["picture"]).read_bytes().startswith(b"\x89PNG")
    return report


def test_a_flood_starves_a_guaranteed_tenant_without_admission_and_not_with_it(tmp_path: Path) -> None:
    runs = found_by(tmp_path, "overload", "--speed", "20", "--duration", "40")["runs"]
    guaranteed = {name: run["tenants"]["guaranteed"] for name, run in runs.items()}
    p99 = {name: one["ttft_seconds"]["p99"] for name, one in guaranteed.items()}
    assert p99[WITHOUT] > 19.0
    assert p99[WITH] < p99[WITHOUT] / 5
    assert guaranteed[WITH]["endings"]["broken_off"] == guaranteed[WITH]["endings"]["failed"] == 0
    assert guaranteed[WITH]["endings"]["done"] >= 0.9 * guaranteed[WITH]["sent"]
    assert runs[WITH]["tenants"]["spot"]["endings"]["refused"] > runs[WITH]["tenants"]["spot"]["endings"]["done"]
    assert runs[WITH]["server_tokens"] > 0.75 * runs[WITHOUT]["server_tokens"]


def test_an_outage_is_shared_by_slo_and_debt_and_paid_off_after_it(tmp_path: Path) -> None:
    runs = found_by(tmp_path, "fair-share", "--speed", "10", "--duration", "105")["runs"]
    phases = runs["admission"]["phases"]
    outage, unlimited = phases["one server"], runs["no admission"]["phases"]["one server"]
    assert outage["elastic-copilot"]["ttft_in_slo"] > unlimited["elastic-copilot"]["ttft_in_slo"]
    assert outage["elastic-copilot"]["share"] > outage["elastic-synth"]["share"] > 0
    assert outage["elastic-synth"]["debt"] > 0.02
    assert max(one["longest_gap_seconds"] for one in outage.values()) < 30
    assert phases["both again"]["elastic-synth"]["debt"] < outage["elastic-synth"]["debt"]
    assert phases["third tenant"]["elastic-analytics"]["in_use"] > 2


def test_a_scenario_that_is_interrupted_stops_what_it_started(tmp_path: Path) -> None:
    errors = tmp_path / "errors"
    with errors.open("w") as stderr:
        process = subprocess.Popen([*COMMAND, "overload", "--out", str(tmp_path)], stderr=stderr)
    deadline = time.monotonic() + 60
    while not [pid for pid in children(process.pid) if "envoy" in Path(f"/proc/{pid}/comm").read_text()]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    started = children(process.pid)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert "stopped before the end" in errors.read_text()
    assert [pid for pid in started if alive(pid)] == []


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
