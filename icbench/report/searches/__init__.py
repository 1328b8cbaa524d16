"""What a report shows of a search: `found` its trials, `rates` and `fit` the objective along a rate, `importance` what
matters, `confirmed` what runs on test images say of it; `tables`, `figures`, `document` and `page` as people see it.
"""
