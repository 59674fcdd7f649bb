"""Figures and the page, from files that a real run wrote."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from dtsim.experiment import run
from dtsim.jobs import plan
from dtsim.measured import system_delays_s
from dtsim.reporting import figures
from dtsim.reporting.runs import load
from dtsim.reporting.settings import HALVES, Setting, settings
from dtsim.reporting.style import COLOURS, HATCHES, LINES, MARKERS, place_of, save
