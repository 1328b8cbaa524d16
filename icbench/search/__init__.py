"""Searches: Optuna proposes, ordinary runs answer, one study for each cell of a grid.

A search file is read by `settings`; `space` says what is searched, `objective` by what it is judged, `methods` how.
`study` is a cell's Optuna study and its trials; `crew` the workers that train their runs; `controller` brings the two
together. `trials` is the table of it all, `confirm` the sweep that a search ends with.
"""
