"""Starting a run on this machine, following it, and showing it."""
