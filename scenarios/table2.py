"""A setting whose magnitudes come near the paper's Table II: training x0.27, inference sizes x0.0225, base load
of mean 0.45, and the cooling variant with P_IT put into (20) in kW. Compared by orderings, never tuned to.

Rows: I34.
"""

from cosim.scenarios._study import study

SCENARIO = study("table2", "near the magnitudes of the paper's Table II: 40 % load, its cooling variant",
                 train_rate_scale=0.27, inf_size_scale=0.0225, profile={"mean": 0.45}, cooling="table2")
