"""Probes: each measures one thing about a network, such as what it does with shifted images, or what its layers hold.

A probe is one file with a function `probe(subject, *, seed, **options) -> list[Row]`, which `menu` finds by its name.
The seed and the options decide every number except times. A row is a dictionary such as `{"protocol": "shift.crop@v1",
"metric": "consistency", "value": 0.93}`. Where they apply, it also has

    low, high    the 95 % interval, a bootstrap over images
    layer        the name of the tap that was measured
    at, at_unit  the level at which a swept number was measured, and its unit
    reason       why the value is NaN

All protocols of a probe have the same version, which is raised when their numbers change meaning.
"""
