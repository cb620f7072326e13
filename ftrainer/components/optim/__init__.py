"""Optimizers and the transforms that compose with them: `init(params)`, `update(grads, opt_state, params, ctx)`."""
