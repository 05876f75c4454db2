"""Certificates of brackets: a compact Parquet file, and its independent verification in NumPy float64.

A lower bound is certified by the leaves of a search tree. Each leaf holds the triples decided on its path and
multipliers y; the Lagrangian dual function g(y) over the leaf's plans never exceeds the cost of any of them, and the
leaves together hold every plan, so the least g over the leaves is a bound. An upper bound is certified by its plan.

`format` writes and reads the file, `dual` evaluates g, `verification` holds a table's claims against both. None shares
code with the solvers or with `rodiu_jax.model.evaluation`.
"""

from rodiu_jax.certificates.codec import (
    Certificate,
    certificate_table,
    certified_rows,
    load_certificates,
    save_certificates,
    write_certificates,
)
from rodiu_jax.certificates.verify_rows import verify_rows
from rodiu_jax.certificates.witness_dual import dual_values

__all__ = [
    "Certificate",
    "certificate_table",
    "certified_rows",
    "dual_values",
    "load_certificates",
    "save_certificates",
    "verify_rows",
    "write_certificates",
]
