"""The commands, one module for each noun. They use the public names of the package alone."""
