"""A catalogue small enough to sweep in a test, and quantities to add to one."""

import json

TINY = """
[catalog]
name = "tiny"
extends = "corrected"
[sets]
query = ["Code_Gen", "Translation"]
model = ["Llama-3.1-8B", "Llama-3.2-1B"]
gpu = ["A6000_FP16", "H100_FP16"]
tp = [1, 2]
"""


def quantity(name: str, over: str, unit: str, each: str) -> str:
    """A quantity of a catalogue with one entry for all names, as TOML; ``over`` has its axes with blanks between."""
    return f'[quantity.{name}]\nover = {json.dumps(over.split())}\nunit = "{unit}"\nsource = "ours"\neach = {each}\n'
