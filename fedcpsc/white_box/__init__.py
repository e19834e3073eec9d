"""CPSC-DFKD as published, over a local teacher whose gradients and statistics are open to it."""
