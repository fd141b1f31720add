"""The optimizers that a name can stand for."""

import difflib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import optim

from fasttrain.base.errors import ConfigError
from fasttrain.training.optimizers.apex import apex_class
from fasttrain.training.optimizers.fused import fused_class
from fasttrain.training.optimizers.lamb import Lamb
from fasttrain.training.optimizers.muon import FilterMuon
from fasttrain.training.optimizers.novograd import NovoGrad
from fasttrain.training.optimizers.rectified import AdaBelief, RAdam
from fasttrain.training.optimizers.wrappers import Lookahead, SideBySide

Target = Callable[..., optim.Optimizer]
LOOKAHEAD = "lookahead:"


@dataclass(frozen=True)
class Kind:
    """One entry of the registry.

    Attributes:
        target: gives what is called with parameter groups and arguments; imports what it needs.
        lr, weight_decay: defaults for fine-tuning; without a default `lr` it has to be given.
        fused: devices on which it is asked for torch's fused implementation.
        device: the only one that it runs on.
        clips: it clips gradients itself, by its argument `max_grad_norm`.
        matrix_dims: numbers of dimensions of the parameters inside of the model that it treats in another way than all
            else.
    """

    description: str
    target: Callable[[], Target]
    lr: float | None = None
    weight_decay: float = 0.0
    fused: tuple[str, ...] = ()
    device: Literal["cuda"] | None = None
    clips: bool = False
    matrix_dims: tuple[int, ...] = ()


def _sgd(
    params: Any, lr: float, momentum: float = 0.9, dampening: float = 0.0, nesterov: bool = True, fused: bool = False
) -> optim.Optimizer:
    can = momentum > 0 and dampening == 0
    return optim.SGD(params, lr, momentum, dampening, nesterov=nesterov and can, fused=fused)


def _ranger(
    params: Any,
    lr: float,
    betas: tuple[float, float] = (0.95, 0.999),
    eps: float = 1e-5,
    k: int = 6,
    alpha: float = 0.5,
) -> optim.Optimizer:
    return Lookahead(RAdam(params, lr, betas, eps, centralise=True), k, alpha)


def _muon(
    params: Any,
    lr: float,
    momentum: float = 0.95,
    nesterov: bool = True,
    ns_steps: int = 5,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    fused: bool = False,
) -> optim.Optimizer:
    matrices = [group for group in params if group["is_matrix"]]
    others = [group for group in params if not group["is_matrix"]]
    if not matrices:
        raise ConfigError(
            "muon is for the matrices inside of a model, and this one has none (convolutions are not); use timm:muon, "
            "which takes convolutions for matrices, or adamw"
        )
    # The update's size is brought to that of AdamW, so that one learning rate fits both.
    muon: optim.Optimizer = optim.Muon(
        matrices, lr, momentum=momentum, nesterov=nesterov, ns_steps=ns_steps, adjust_lr_fn="match_rms_adamw"
    )
    return SideBySide([muon, optim.AdamW(others, lr, betas, eps, fused=fused)])


def _muon_sgd(
    params: Any,
    lr: float,
    momentum: float = 0.6,
    ns_steps: int = 3,
    keep_norm: bool = True,
    sgd_momentum: float = 0.85,
    fused: bool = False,
) -> optim.Optimizer:
    filters = [group for group in params if group["is_matrix"]]
    others = [group for group in params if not group["is_matrix"]]
    if not filters:
        raise ConfigError("muon-sgd is for convolutions and matrices inside of a model, and this one has none; use sgd")
    muon = FilterMuon(filters, lr, momentum, ns_steps=ns_steps, keep_norm=keep_norm)
    return SideBySide([muon, _sgd(others, lr, sgd_momentum, fused=fused)] if others else [muon])


def _apex(name: str, **fixed: Any) -> Callable[[], Target]:
    return lambda: functools.partial(apex_class(name), **fixed)


_EVERYWHERE = ("cpu", "cuda")
_OWN = {
    "adamw": Kind(
        "AdamW (decoupled weight decay, Loshchilov & Hutter 2019); torch's, fused",
        lambda: optim.AdamW,
        5e-4,
        0.05,
        _EVERYWHERE,
    ),
    "adam": Kind(
        "Adam (Kingma & Ba 2015), weight decay as L2; torch's, fused", lambda: optim.Adam, 5e-4, 0.0, _EVERYWHERE
    ),
    "sgd": Kind(
        "SGD with Nesterov momentum, weight decay as L2; torch's, fused", lambda: _sgd, 0.02, 5e-5, _EVERYWHERE
    ),
    "adagrad": Kind("Adagrad (Duchi et al. 2011); torch's, fused on CPU", lambda: optim.Adagrad, 0.01, 0.0, ("cpu",)),
    "muon": Kind(
        "Muon (Jordan et al. 2024) for matrices inside of the model, AdamW for all else; torch's",
        lambda: _muon,
        5e-4,
        0.05,
        _EVERYWHERE,
        matrix_dims=(2,),
    ),
    "muon-sgd": Kind(
        "Muon for convolutions and matrices inside of the model, Nesterov SGD for all else; to train from scratch",
        lambda: _muon_sgd,
        0.24,
        0.0,
        _EVERYWHERE,
        matrix_dims=(2, 3, 4, 5),
    ),
    "lamb": Kind(
        "LAMB (You et al. 2020) for large batches, clips at norm 1; multi-tensor", lambda: Lamb, 2e-3, 0.02, clips=True
    ),
    "novograd": Kind(
        "NovoGrad (Ginsburg et al. 2019), half of Adam's memory; multi-tensor", lambda: NovoGrad, 2e-3, 1e-3
    ),
    "adabelief": Kind("AdaBelief (Zhuang et al. 2020), rectified; multi-tensor", lambda: AdaBelief, 5e-4, 0.05),
    "radam": Kind("RAdam (Liu et al. 2020), decoupled weight decay; multi-tensor", lambda: RAdam, 5e-4, 0.05),
    "ranger": Kind(
        "Ranger: RAdam, Lookahead and gradient centralisation (Wright 2019); multi-tensor", lambda: _ranger, 5e-4, 0.05
    ),
    "triton:adamw": Kind(
        "AdamW; clipping, update and moving average of all weights in one pass of our kernels, for CUDA",
        lambda: fused_class("adamw"),
        5e-4,
        0.05,
        clips=True,
    ),
    "triton:lamb": Kind(
        "LAMB, clips at norm 1; the same in two passes", lambda: fused_class("lamb"), 2e-3, 0.02, clips=True
    ),
    "apex:adam": Kind(
        "apex FusedAdam, weight decay as L2", _apex("FusedAdam", adam_w_mode=False), 5e-4, 0.0, device="cuda"
    ),
    "apex:adamw": Kind(
        "apex FusedAdam, decoupled weight decay", _apex("FusedAdam", adam_w_mode=True), 5e-4, 0.05, device="cuda"
    ),
    "apex:lamb": Kind("apex FusedLAMB, clips at norm 1", _apex("FusedLAMB"), 2e-3, 0.02, device="cuda", clips=True),
    "apex:sgd": Kind(
        "apex FusedSGD with Nesterov momentum 0.9",
        _apex("FusedSGD", momentum=0.9, nesterov=True, set_grad_none=True),
        0.02,
        5e-5,
        device="cuda",
    ),
    "apex:novograd": Kind("apex FusedNovoGrad", _apex("FusedNovoGrad", betas=(0.95, 0.98)), 2e-3, 1e-3, device="cuda"),
    "apex:adagrad": Kind("apex FusedAdagrad", _apex("FusedAdagrad"), 0.01, 0.0, device="cuda"),
}
_TIMM = "timm:"


def list_optimizers() -> dict[str, str]:
    """Name and one line about each optimizer; ``lookahead:NAME`` puts Lookahead around any of them."""
    own = {name: kind.description for name, kind in _OWN.items()}
    return own | {f"{_TIMM}{name}": description for name, description in _timm_descriptions().items()}


def find(name: str) -> Kind:
    """The optimizer that a name without ``lookahead:`` stands for; timm's may go without ``timm:`` if only it has them.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    if name in _OWN:
        return _OWN[name]
    timms = _timm_descriptions()
    plain = name.removeprefix(_TIMM)
    if plain in timms:
        return _from_timm(plain, timms[plain])
    known = [*_OWN, *timms, *(f"{_TIMM}{other}" for other in timms)]
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else "`fasttrain train --list-optimizers` names them"
    raise ConfigError(f"there is no optimizer {name!r}; {hint}")


@functools.cache
def _timm_descriptions() -> dict[str, str]:
    """timm's own optimizers: not those that stand for apex or bitsandbytes, nor those that need second derivatives."""
    from timm.optim import get_optimizer_info
    from timm.optim import list_optimizers as list_timm

    infos = [get_optimizer_info(name) for name in list_timm()]
    return {
        info.name: info.description
        for info in infos
        if not (info.second_order or info.name.startswith(("fused", "bnb")))
    }


def _from_timm(name: str, description: str) -> Kind:
    from timm.optim import get_optimizer_class

    return Kind(description, lambda: get_optimizer_class(name))
