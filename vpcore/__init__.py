"""vpcore: what compressing a vision network costs when it is adapted by visual prompting or linear probing.

Read the modules in the order in which the data flows: `data` and `synthetic` (images), `models` (networks), `training`,
`pruning` (lottery tickets), `prompting`, `mapping`, `transfer` (adaptation), `calibration` (metrics), `study` and `store`
(the grid of runs and its records), `claims` (statistics), `plots`.
"""

from vpcore.errors import InputError

__version__ = "0.1.0"
__all__ = ["InputError", "__version__"]
