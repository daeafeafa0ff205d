"""What steers a fleet, and how it learns: the study's agents (`fleet`), learners (`learn`), teams that ship."""

if __name__ == "agents":  # found as a folder of the clone, by its name of version 0.1: no module may exist twice
    import cosim.imports

    cosim.imports.hand_over(__name__)
