"""benchmark-mi's side: the compiled step of its training loop, on batches prepared beforehand, without its log."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from bmi.estimators.neural import _backend_quadratic_memory as backend
from bmi.estimators.neural._critics import MLP
from serve import serve


def make(data: str, bound: str, batch: int, hidden: list[int]) -> Callable[[int], None]:
    arrays = np.load(data)
    x, y = jnp.asarray(arrays["x"]), jnp.asarray(arrays["y"])
    formula = getattr(backend, bound)
    critic = MLP(jax.random.PRNGKey(0), x.shape[1], y.shape[1], hidden)
    optimiser = optax.adam(learning_rate=0.1)
    state = {"critic": critic, "optimiser": optimiser.init(critic)}

    @jax.jit  # as in bmi.estimators.neural._basic_training
    def step(critic: Any, opt_state: Any, xs: Any, ys: Any) -> Any:
        loss, grads = jax.value_and_grad(lambda c: -formula(c, xs, ys))(critic)
        updates, opt_state = optimiser.update(grads, opt_state, critic)
        return optax.apply_updates(critic, updates), opt_state, -loss

    count = len(x) // batch
    parts = [(x[k * batch : (k + 1) * batch], y[k * batch : (k + 1) * batch]) for k in range(count)]

    def run(steps: int) -> None:
        for k in range(steps):
            state["critic"], state["optimiser"], value = step(
                state["critic"], state["optimiser"], *parts[k % count]
            )
        value.block_until_ready()

    run(2)
    return run


if __name__ == "__main__":
    serve(make, {"benchmark-mi": version("benchmark-mi"), "jax": jax.__version__})
