"""What a report is made of: pictures as data, the arithmetic behind them, and two ways to draw them."""
