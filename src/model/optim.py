"""Muon for the matrices, AdamW for embeddings and norms: the fewest tokens to a given loss on a small budget."""
import torch


def orthogonalize(g, steps=4):
    """Newton-Schulz iteration on a stack of matrices."""
    a, b, c = 3.4445, -4.7750, 2.0315
    flip = g.shape[-2] > g.shape[-1]
    x = g.transpose(-2, -1) if flip else g
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        s = x @ x.transpose(-2, -1)
        x = a * x + (b * s + c * s @ s) @ x
    return x.transpose(-2, -1) if flip else x


class Muon(torch.optim.Optimizer):
    def __init__(self, params, lr=0.02, momentum=0.95, weight_decay=0.01):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            shapes = {}
            for p in group["params"]:
                if p.grad is not None:
                    shapes.setdefault(tuple(p.shape), []).append(p)
            for shape, params in shapes.items():
                for p in params:
                    if "m" not in self.state[p]:
                        self.state[p]["m"] = torch.zeros_like(p)
                grads, moments = [p.grad for p in params], [self.state[p]["m"] for p in params]
                torch._foreach_lerp_(moments, grads, 1 - group["momentum"])
                updates = torch._foreach_lerp(grads, moments, group["momentum"])
                stack = orthogonalize(torch.stack(updates))
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(params, list(stack.unbind()), alpha=-group["lr"] * scale)


def make_optimizers(model, muon_lr, adam_lr):
    matrices, others = [], []
    for name, p in model.named_parameters():
        (matrices if p.dim() == 2 and "embed" not in name else others).append(p)
    return [Muon(matrices, lr=muon_lr),
            torch.optim.AdamW(others, lr=adam_lr, betas=(0.9, 0.95), weight_decay=0.0)]
