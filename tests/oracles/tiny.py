"""A catalogue small enough to sweep in a test."""

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
