"""What a network does with images that were moved, cut, turned or disturbed: one file a probe, found by its name.

A probe is `probe(subject, *, seed, **options) -> list[Row]`. A row is `{"protocol": "shift.crop@v1", "metric":
"consistency", "value": 0.93}`, and where they apply `low` and `high` (95 % interval, bootstrap over images), `layer` (a
tap's name), `at` (the abscissa of a swept row, its unit in `at_unit`) and `reason` (why the value is NaN). All protocols
of one probe have one version. Seeds and options decide every number but a time.
"""
