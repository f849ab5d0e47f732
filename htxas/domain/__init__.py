"""The nouns of the field as frozen dataclasses over numpy. No I/O, no database, no engine."""
