"""The scaled probe: a linear probe of tokens that are multiplied by a number of their own, and a decoder that starts from it.

    python bench/scale.py PAIRS OUT [--epochs 4]

The last LayerNorm of an encoder divides each token by its standard deviation. Pairs don't have that number. A small MLP of the
token estimates its logarithm, fitted by turns with the closed-form probe, on the pixels alone. Then a decoder whose shortcut is
that probe is trained by the package's own loop. A prototype outside the package: validation PSNR in dB, one seed.
`bench/scale.json` has what it gave on real photos.
"""
import os; os.environ.setdefault('TQDM_DISABLE', '1')
import time
from collections.abc import Callable
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
import torch, torch.nn as nn, torch.nn.functional as F
from fastcore.basics import patch
from fastcore.script import call_parse
from huggingface_hub import PyTorchModelHubMixin
from dinoinv.core import DinoinvError
from dinoinv.dataset import PairsDataset, load_batches
from dinoinv.decoder import Decoder, LinearProbe, bounded, normalise
from dinoinv.scores import average
from dinoinv.train import TrainConfig, train_decoder, validate

LARGEST = 3. # of the logarithm of a token's scale: a token may count twenty times as much as usual, or as little

class ScaledProbe(nn.Module, PyTorchModelHubMixin):
    "A linear probe of tokens that are multiplied by a number of their own first: `(B,C,h,w)` → `(B,3,14h,14w)`"
    def __init__(self,
        in_dim:int=384,  # channels of a token
        unit:int=14,     # px per token
        reach:int=0,     # how many neighbours to each side it reads, beside the token itself
        hidden:int=256,  # channels of the two layers that the number comes from
    ):
        super().__init__()
        self.in_dim,self.unit,self.reach = in_dim,unit,reach
        self.register_buffer('mean', torch.zeros(in_dim)) # of the features, by channel
        self.register_buffer('std', torch.ones(in_dim))
        self.log_scale = nn.Sequential(
            nn.Conv2d(in_dim, hidden, 1), nn.GELU(),
            nn.Conv2d(hidden, hidden, 1), nn.GELU(),
            nn.Conv2d(hidden, 1, 1))
        nn.init.zeros_(self.log_scale[-1].weight)
        nn.init.zeros_(self.log_scale[-1].bias)
        self.probe = LinearProbe(in_dim, unit, reach)

    def tokens(self, features):
        "The tokens with a mean of 0 and a spread of 1 in each channel, none of them overlong"
        return bounded(normalise(features, self.mean, self.std))

    def scale(self, tokens):
        "The number of each token, `(B,1,h,w)`"
        log = self.log_scale(tokens).float()
        return (LARGEST*torch.tanh(log/LARGEST)).exp()

    def forward(self, features, factor=1.):
        "The pixels that the scaled tokens stand for; `factor` multiplies each token once more"
        tokens = self.tokens(features)
        return self.probe(tokens*self.scale(tokens)*factor)

def endless(batches):
    "The batches of one pass after the other"
    while True: yield from batches()

@patch
def fit_scale(self:ScaledProbe,
    batches:Callable, # returns an iterator of `(features (B,C,h,w), pixels (B,3,14h,14w) in [0,1])`
    steps:int,        # of Adam, one batch each
    lr:float=2e-3,    # at first; it falls to zero
):
    "Move the numbers of the tokens to where the probe's squared error on the pixels is least"
    params = [*self.log_scale.parameters()]
    opt = torch.optim.Adam(params, lr=lr)
    sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, steps)
    for features,pixels in islice(endless(batches), steps):
        loss = F.mse_loss(self(features), pixels)
        opt.zero_grad()
        loss.backward()
        opt.step()
        sched.step()

@patch
@torch.no_grad()
def fit_probe(self:ScaledProbe,
    batches:Callable, # see `fit_scale`
    reach:int,        # how many neighbours to each side the probe reads
):
    "Replace the probe by the closed-form one of the scaled tokens"
    def scaled():
        for features,pixels in batches():
            tokens = self.tokens(features)
            yield tokens*self.scale(tokens), pixels
    self.probe = LinearProbe.fit(scaled(), self.unit, reach)

@patch(cls_method=True)
def fit(cls:ScaledProbe,
    batches:Callable, # returns an iterator of `(features (B,C,h,w), pixels (B,3,14h,14w) in [0,1])`, in mixed order
    unit:int=14,      # px per token
    reach:int=0,      # how many neighbours to each side it reads
    seed:int=0,       # of the first weights
    rounds:int=3,     # of probe and scale by turns
    steps:int=400,    # of Adam in each round
)->ScaledProbe:
    "The scaled probe of `batches`, in memory that doesn't grow; raises `DinoinvError` if there are none"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        plain = LinearProbe.fit(batches(), unit)
        self = cls(plain.in_dim, unit, reach).to(plain.mean.device)
        self.mean.copy_(plain.mean)
        self.std.copy_(torch.where(plain.std > 1e-5, plain.std, 1.)) # a silent channel stays silent, however loud it is later
        for _ in range(rounds):
            self.fit_probe(batches, reach=0)
            self.fit_scale(batches, steps)
        self.fit_probe(batches, reach)
    return self.requires_grad_(False).eval()

class ScaledDecoder(Decoder):
    "The residual blocks beside a scaled probe, where they start: features `(B,C,h,w)` → `(B,3,14h,14w)`"
    def __init__(self,
        in_dim:int=384, # channels of a token
        reach:int=1,    # neighbours to each side that the probe reads
        unit:int=14,    # px per token
        **kwargs,       # see `Decoder`
    ):
        super().__init__(in_dim, reach=reach, unit=unit, **kwargs)
        self.shortcut = ScaledProbe(in_dim, unit, reach)

    def forward(self, features):
        "Pictures from features; out of training, the probe's part is in float32 whatever the rest is in"
        seen = self.blocks(self.stem(self.shortcut.tokens(features)))
        exact = nullcontext() if self.training else torch.autocast(features.device.type, enabled=False)
        with exact: read = self.shortcut(features, self.factor(seen))
        return self.upsample(self.out(seen).float()) + read.float()

@patch
def start_from(self:ScaledDecoder,
    probe:ScaledProbe, # fitted on the training pairs
)->ScaledDecoder: # itself
    "Take over all of `probe`: the first picture is the probe's"
    if probe.reach != self.reach:
        raise DinoinvError(f'the shortcut has a reach of {self.reach}, the probe one of {probe.reach}')
    self.shortcut.load_state_dict(probe.state_dict())
    return self

@call_parse
def main(pairs:str,       # folder written by dinoinv_prepare
         out:str,         # folder for the run
         epochs:int=4):   # of training
    "See the head of this file"
    cfg = TrainConfig(epochs=epochs)
    train = PairsDataset(pairs, 'train', None)
    val = PairsDataset(pairs, 'val', cfg.val_crop, random=False)
    def batches():
        for b in load_batches(train, 8, shuffle=True): yield b['features'], b['target']
    for reach in (0,1):
        start = time.process_time()
        probe = ScaledProbe.fit(batches, train.unit, reach)
        scores = average(validate(probe, val))
        print(f"scaled probe, reach {reach}: {scores['psnr']:.2f} dB, {time.process_time()-start:.0f} CPU s", flush=True)
    torch.manual_seed(cfg.seed)
    model = ScaledDecoder(probe.in_dim, unit=probe.unit).start_from(probe)
    for row in train_decoder(pairs, out, cfg, model=model): print(f"epoch {row['epoch']}: {row['val']['psnr']:.2f} dB")
