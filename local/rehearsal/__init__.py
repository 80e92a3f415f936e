"""The rehearsal model: a local server of the Anthropic Messages wire protocol, for machines without a key.

It stands where the vendor's cloud would be and always builds the same kind of product. What it says is decided by
`script.py` and the modules that it calls, from the request alone; the rest of the package is the protocol.
"""
