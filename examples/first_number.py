"""The first number: five lines. The truth is log 2 = 0.693 nats: two coordinates of 1/2 log(1 + 1) each."""

import numpy as np

import flomi

x = np.random.default_rng(0).normal(size=(2000, 3))
y = x[:, :2] + np.random.default_rng(1).normal(size=(2000, 2))
print(flomi.estimate(x, y))
