"""Who writes what is said in a trajectory: annotations, or a model behind the harness's engines."""
