"""The command line. Command modules import only click at the top, so that no command pays for another's imports."""

from __future__ import annotations

import click

from extproc.cli.bench import bench
from extproc.cli.check import check
from extproc.cli.envoy import envoy
from extproc.cli.failures import OneLineGroup
from extproc.cli.key import key
from extproc.cli.plan import plan
from extproc.cli.scenario import scenario
from extproc.cli.scenario_fairness import fairness
from extproc.cli.serve import serve, worker
from extproc.cli.sim import sim
from extproc.cli.simulate import simulate
from extproc.cli.simulate_compare import compare
from extproc.cli.simulate_papers import papers
from extproc.cli.status import status
from extproc.cli.up import up


@click.group(
    "tokenpool", cls=OneLineGroup, context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="tokenpool", prog_name="tokenpool", message="%(prog)s %(version)s")
def main() -> None:
    """Token budgets, pools and entitlements for fleets of vLLM servers, beside Envoy.

    Start with everything on this machine, simulated servers included:

        tokenpool up --config tokenpool.yaml
    """


for command in (up, serve, worker, check, envoy, key, status, sim, plan, simulate, scenario, bench):
    main.add_command(command)
scenario.add_command(fairness)
simulate.add_command(compare)
simulate.add_command(papers)
