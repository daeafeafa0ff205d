"""The models: grid, data centers, workload, controller, prices; and the analysis of what they wrote into a trace."""

if __name__ == "simulators":  # found as a folder of the clone, by its name of version 0.1: no module may exist twice
    import cosim.imports

    cosim.imports.hand_over(__name__)
