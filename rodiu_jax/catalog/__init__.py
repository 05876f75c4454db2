"""Catalogues as data: names, values with unit and source, and the rules by which scenarios are drawn.

A catalogue is a TOML file. ``[catalog]`` has its name, a description and the catalogue it ``extends`` (by
name, or by path relative to the file); what it says goes over what that one says, name by name. ``[sets]``
lists the names along the axes ``query``, ``model``, ``gpu`` and ``tp``; ``[attributes.gpu]`` and the like may
label them (``device`` of a GPU says whose quota it shares; `rodiu_jax.catalog.labels` are what names are called
elsewhere: ``repository`` of a model, ``product`` and ``accelerator`` of a GPU).
``[quantity.NAME]`` has ``over`` (its axes), ``unit``, ``source``, perhaps ``reliability`` (1 to 5 stars) and
``note``, and one of these rules:

- ``each = ENTRY`` and/or ``[quantity.NAME.values]`` with an entry per name (nested for several axes), or per
  label of the attribute ``by``. An entry is a number or a table with one of ``fixed = v``,
  ``uniform = [a, b]``, ``log_uniform = [a, b]``, ``normal = {mean, sd, low, high}`` (cut to that range),
  ``choice = [v, ...]`` (equally likely, as from data), and perhaps its own ``source``, ``reliability``,
  ``note``. Every entry is drawn on its own.
- ``multiply = [...]`` and/or ``divide = [...]``: product of quantities, broadcast by the names of axes.
- ``sum = {quantity = weight}``, perhaps with ``divisor = d`` and ``clip = [low, high]``.
- ``level_of = "quantity"``, ``cuts = [...]``: how many cuts are <= its value.
- ``class_of = "quantity"``, ``classes = [{below = v, ENTRY}, ..., {ENTRY}]``: drawn from the first class
  whose bound is above its value.

A file that gives ``values`` alone to a quantity that a rule gives in the catalogue it extends puts them in the
rule's place for those names, and the rule stays for all the others.

``together = "GROUP"`` beside ``choice``: all entries of a group are drawn as one, at the same position of each
list, so that the rate and the token lengths of one hour of a trace stay together. ``basis`` beside a source says
whether a value is ``measured``, ``predicted`` or ``assumed``.

``[promise.QUERY]`` has ``limits`` (`rodiu_jax.catalog.promises`) and perhaps ``source``. ``[[curve]]`` has
``query``, ``model``, ``gpu``, ``tp``, ``source`` and ``points``, each ``{rate = queries/h, ms = {ttft_p99 = ...}}``:
what was measured of one replica, perhaps with ``tokens = [input, output]``, the mean lengths of a request.
``throughput`` of that cell is then the highest measured rate at which the promise of the query type holds, 0 where it
holds at none. ``at_curve = true`` beside ``fixed`` in ``delay_nominal``, ``residency_hours`` or ``tp_speedup`` says
that the number follows the curves of its names (`rodiu_jax.catalog.curve_values`); the fixed one counts where none is
left.

Every field of an instance except ``tp_degree`` must be a quantity; any other quantity may be added.
``[[comparison]]``, ``[[example]]`` and ``[[contradiction]]`` are claims that ``rodiu validate`` looks into.
"""

from rodiu_jax.catalog.distributions import Distribution
from rodiu_jax.catalog.file_format import Comparison, Contradiction, Example, Measure
from rodiu_jax.catalog.load import catalog_names, load_catalog
from rodiu_jax.catalog.quantities import Catalog, Quantity
from rodiu_jax.catalog.recipes import Classes, Draws, Entry, Level, Patched, Product, Rule, WeightedSum

__all__ = [
    "Catalog",
    "Classes",
    "Comparison",
    "Contradiction",
    "Distribution",
    "Draws",
    "Entry",
    "Example",
    "Level",
    "Measure",
    "Patched",
    "Product",
    "Quantity",
    "Rule",
    "WeightedSum",
    "catalog_names",
    "load_catalog",
]
