"""The commands of `vpcore`, one function each; `vpcore.cli` imports the module of the one that is called."""
