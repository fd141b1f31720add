"""A small model that optimizers are compared on."""

import torch


class Net(torch.nn.Module):
    """Parameters of all sorts: matrices, a convolution, vectors, and one that a loss may leave out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.norm = torch.nn.GroupNorm(2, 4)
        self.hidden = torch.nn.Linear(4, 6)
        self.fc = torch.nn.Linear(6, 3)
        self.pretrained_cfg = {"classifier": "fc"}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.fc(self.hidden(self.norm(self.conv(images)).relu().mean((2, 3))).relu())
        return result


def make_net() -> Net:
    """The same weights each time."""
    torch.manual_seed(0)
    return Net()


def loss_of(model: torch.nn.Module, step: int) -> torch.Tensor:
    """On images and slopes that belong to a step."""
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(8, 3, 5, 5, generator=generator)
    loss: torch.Tensor = (model(images) * torch.randn(8, 3, generator=generator)).sum()
    return loss


def take_steps(model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int, first: int = 0) -> None:
    """Steps `first` to ``first + steps - 1``."""
    for step in range(first, first + steps):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()


def assert_alike(ours: torch.nn.Module, theirs: torch.nn.Module, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """Their parameters, one by one."""
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}")
