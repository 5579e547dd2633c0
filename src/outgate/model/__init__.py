"""The nouns: frozen dataclasses, no behaviour beyond what their fields mean."""
