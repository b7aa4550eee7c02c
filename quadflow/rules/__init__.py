"""Quadrature rules, the Lagrange basis and Runge-Kutta tableaus: what methods are made of."""
