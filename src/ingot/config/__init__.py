"""Configuration as frozen, validated values: YAML and `key=value` overrides in, one-line errors out."""
