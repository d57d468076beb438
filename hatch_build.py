"""What an editable install needs beside the path to the sources: the files that Python looks for at its start."""

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Hook(BuildHookInterface):
    """Named in pyproject.toml."""

    def initialize(self, version, build_data):
        """Put them where other packages lie, in an editable install as in a wheel."""
        if version == "editable":
            build_data["force_include_editable"].update(self.build_config.target_config["force-include"])
