"""The web console in Chromium, on real servers."""
