"""The one command `cosim`: which subcommands there are, and those that no other room has."""
