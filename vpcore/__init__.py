"""vpcore: what compressing a vision network costs when it is adapted by visual prompting or linear probing.

Read the modules in the order in which the data flows: `data` (images), `backbones` and `training` (networks), `pruning`,
`methods` and `tickets` (sparse networks), `quantization`, `prompting`, `mapping`, `transfer` and `probing` (adaptation),
`predictions`, `calibration` and `scores` (metrics), `runs`, `profiles`, `study` and `store` (the grid of runs and its
records), `claims` (statistics), `plots`. The README lists them all.
"""

from vpcore.errors import InputError

__version__ = "0.1.0"
__all__ = ["InputError", "__version__"]
