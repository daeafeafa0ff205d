"""`cosim study`: the paper's evaluation and the value of a signal, as cells, claims, verdicts and one page."""
