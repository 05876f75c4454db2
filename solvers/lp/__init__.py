"""Small structured linear programs, many at once: a primal-dual interior point in float64.

`solvers.lp.program` holds the program and its rows, `solvers.lp.newton` the linear systems of an iteration,
`solvers.lp.interior` the method, and `solvers.lp.stages` how XLA is kept from computing things twice on a CPU.
"""
