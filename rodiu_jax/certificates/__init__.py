"""Certificates of brackets: a compact Parquet file, and its independent verification in NumPy float64.

A lower bound is certified by the leaves of a search tree. Each leaf holds the triples decided on its path and
multipliers y; the Lagrangian dual function g(y) over the leaf's plans never exceeds the cost of any of them, and the
leaves together hold every plan, so the least g over the leaves is a bound. An upper bound is certified by its plan.

`leaf_codec` knows how a leaf is written, `certificate_file` writes and reads the file, `witness_dual` evaluates g,
`verify_rows` holds a table's claims against both. None shares code with the solvers or with
`rodiu_jax.model.evaluation`.
"""

from rodiu_jax.certificates.certificate_file import (
    Certificate,
    certified_rows,
    load_certificates,
    tabulate_leaves,
    write_certificates,
)
from rodiu_jax.certificates.verify_rows import FaultKind, verify_rows
from rodiu_jax.certificates.witness_dual import dual_values

__all__ = [
    "Certificate",
    "FaultKind",
    "certified_rows",
    "dual_values",
    "load_certificates",
    "tabulate_leaves",
    "verify_rows",
    "write_certificates",
]
