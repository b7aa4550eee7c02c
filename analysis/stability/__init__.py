"""Linear and algebraic stability: regions, order stars, Lebesgue constants."""
