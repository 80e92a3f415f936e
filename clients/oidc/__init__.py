"""Identity providers: their documents and keys, the tokens that they sign, and the codes of their sign-ins."""
