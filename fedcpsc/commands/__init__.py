"""The bodies of the command line: what each command does, shows and exits with."""
