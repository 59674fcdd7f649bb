"""The YAML files of every choice, shipped as `dtsim.conf`."""
