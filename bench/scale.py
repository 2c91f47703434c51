"""A decoder whose factor starts from what each token says of its own size, found from pairs alone.

    python bench/scale.py PAIRS [--epochs 6]

The last LayerNorm of an encoder divides each token by its standard deviation. Pairs don't have that number. But they have the pixels: the scale that a token
should have had is the factor that brings the probe's patch closest to the true one. A linear map of the token is fitted to the logarithm of that, three times
over. Then the default decoder is trained, on tokens that are multiplied by it. This is a prototype; the package has no such decoder.
"""
import os; os.environ.setdefault('TQDM_DISABLE', '1')
import time, torch, torch.nn as nn, torch.nn.functional as F
from fastcore.script import call_parse
from dinoinv.dataset import PairsDataset, load_batches
from dinoinv.decoder import Decoder, LinearProbe, bounded, normalise
from dinoinv.scores import average, validate
from dinoinv.train import TrainConfig, accelerator_for, make_optimizer, train_epoch

class Scale(nn.Module):
    "Features times a scale, the exponential of a linear map of each token"
    def __init__(self, dim):
        super().__init__()
        self.register_buffer('mean', torch.zeros(dim))
        self.register_buffer('std', torch.ones(dim))
        self.log = nn.Conv2d(dim, 1, 1)
        nn.init.zeros_(self.log.weight), nn.init.zeros_(self.log.bias)

    def logarithm(self, features): return self.log(normalise(features, self.mean, self.std)).float()
    def forward(self, features): return features*self.logarithm(features).exp()

def wanted(probe, scale, features, target):
    "The logarithm of the scale with which the probe's patches would come closest to the true ones"
    made,grey = probe(scale(features)),probe.linear.bias.view(1,3,probe.unit,probe.unit)
    grey = grey.repeat(1, 1, *(s//probe.unit for s in made.shape[-2:]))
    a,b = made-grey,target-grey
    per_token = lambda x: F.avg_pool2d(x.sum(1, keepdim=True), probe.unit)
    return scale.logarithm(features) + (per_token(a*b)/per_token(a*a).clamp(min=1e-8)).clamp(.2, 5).log()

@torch.no_grad()
def fit_scale(ds, rounds=3):
    "A `Scale`, and the neighbour probe of the features that it makes"
    batches = lambda every=1: load_batches(ds, 8, every=every)
    scale = Scale(len(ds[0]['features']))
    for _ in range(rounds):
        probe = LinearProbe.fit((scale(b['features']),b['target']) for b in batches())
        says = LinearProbe.fit(((b['features'], wanted(probe, scale, b['features'], b['target']).expand(-1,3,-1,-1)) for b in batches()), unit=1)
        scale.mean.copy_(says.mean), scale.std.copy_(says.std)
        scale.log.weight.copy_(says.linear.weight[:1]), scale.log.bias.copy_(says.linear.bias[:1])
    return scale, LinearProbe.fit(((scale(b['features']),b['target']) for b in batches(4)), reach=1)

class ScaledDecoder(nn.Module):
    "The default decoder, but its shortcut reads tokens that are scaled first; it starts as the scaled neighbour probe"
    def __init__(self, scale, probe):
        super().__init__()
        inner = Decoder(probe.in_dim, unit=probe.unit)
        self.stem,self.blocks,self.out,self.scale,self.upsample = inner.stem,inner.blocks,inner.out,inner.scale,inner.upsample
        self.shortcut,self.shortcut_scale = inner.shortcut,scale # both at the shortcut's rate
        self.shortcut.load_state_dict(probe.linear.state_dict())
        for k in ('mean','std'): self.register_buffer(k, getattr(probe, k).clone())

    def forward(self, features):
        tokens = bounded(normalise(features, self.shortcut_scale.mean, self.shortcut_scale.std))
        seen = self.blocks(self.stem(tokens))
        scaled = normalise(self.shortcut_scale(features), self.mean, self.std)*2*self.scale(seen).float().sigmoid()
        return self.upsample(self.out(seen).float() + self.shortcut(scaled).float())

@call_parse
def main(pairs:str,       # folder written by dinoinv_prepare
         epochs:int=6):   # of training
    "See the head of this file"
    cfg = TrainConfig(epochs=epochs)
    train,val = PairsDataset(pairs, 'train', cfg.crop),PairsDataset(pairs, 'val', cfg.val_crop, random=False)
    print(f"encoder: {train.meta['encoder']['name']} (weights {train.meta['encoder']['weights']}); {len(val)} validation patches; {epochs} epochs", flush=True)
    def line(name, model):
        a = average(validate(model.eval(), val))
        print(f"{name:<24}{a['psnr']:6.2f} dB  SSIM {a['ssim']:.3f}", flush=True)
    scale,probe = fit_scale(train.uncropped())
    line('scaled neighbour probe', nn.Sequential(scale, probe))
    torch.manual_seed(cfg.seed)
    model,acc = ScaledDecoder(scale, probe),accelerator_for(cfg.amp)
    opt,sched = make_optimizer(model, cfg, steps=epochs*-(-len(train)//cfg.batch_size))
    prepared,opt = acc.prepare(model, opt)
    for train.epoch in range(1, epochs+1):
        start = time.process_time()
        train_epoch(prepared, opt, sched, train, cfg, acc)
        seconds = time.process_time()-start
        line(f'epoch {train.epoch}, {seconds:.0f} CPU s', model)
