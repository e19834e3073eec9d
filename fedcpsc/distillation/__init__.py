"""The server's engine: synthesise, ask, bank, fit."""
