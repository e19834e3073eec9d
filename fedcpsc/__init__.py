"""fedcpsc: federated, data-free distillation from teachers that only answer."""

__version__ = "0.1.0"
