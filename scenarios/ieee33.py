"""The default: three AI data centers on the IEEE 33-node feeder, calibrated (model decision 0)."""

from cosim.scenarios._study import study

SCENARIO = study("ieee33", "three AI data centers on the IEEE 33-node feeder, steered by a trained team, one day",
                 policy="ieee33_mat")
