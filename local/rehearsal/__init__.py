"""The rehearsal model: a local server of the Anthropic Messages wire protocol, for machines without a key.

It replaces the vendor's cloud and always builds the same kind of product. `script.py` and the modules that it calls
decide what the model says, from the request alone. The rest of the package is the protocol.
"""
