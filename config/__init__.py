"""What the operator wrote, checked: `load` makes a `Settings`, `diff` compares two, `model` has every default.

`load` (text to settings) · `check` (rules across fields) · `explain` (a behavior in words) · `diff` · `secret`. Holding
a `Settings` that `load` returned means that it is valid. Nothing is imported here: who needs values pays for no parser.
"""
