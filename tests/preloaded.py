"""What the server that forks command lines imports beforehand: modules that dtsim imports when it needs them."""

import hydra.core.plugins
import pandas
import tianshou.data
import torch._dynamo

import dtsim.allocation.learned.agents
import dtsim.bench.twin
import dtsim.cli.app
import dtsim.cli.bench
import dtsim.cli.report
import dtsim.cli.run
import dtsim.reporting.command
import dtsim.reporting.page
import dtsim.runner.experiment
import dtsim.runner.launch

__all__ = ["dtsim", "hydra", "pandas", "tianshou", "torch"]

torch.set_num_threads(1)
hydra.core.plugins.Plugins.instance()
