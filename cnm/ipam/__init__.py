"""Address management: which subnets networks get, and which addresses endpoints.

The built-in drivers are :class:`cnm.ipam.default.DefaultIPAM` and
:class:`cnm.ipam.null.NullIPAM`. They come in by entry point, and are imported on
first use.
"""
