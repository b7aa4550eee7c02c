"""The figures of the README and the docs: the studies behind them, and their way into the pages."""
