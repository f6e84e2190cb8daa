"""One page per phase of the procedure, and what runs behind them."""
