"""Stand-ins for robot hardware: separate processes that speak a controller's own protocol, with simulated
arms behind them. For tests, and for dry runs of a driver without an arm; see ``docs/robots``."""
